! Sums float32 over all ranks through Fortran's bindings; MPI_REAL, in place and not.
program fortran_program
  use mpi
  implicit none
  integer, parameter :: n = 400000
  real, allocatable :: x(:), y(:)
  double precision, allocatable :: exact(:)
  double precision :: worst
  integer :: rank, ranks, i, error

  call MPI_Init(error)
  call MPI_Comm_rank(MPI_COMM_WORLD, rank, error)
  call MPI_Comm_size(MPI_COMM_WORLD, ranks, error)
  allocate (x(n), y(n), exact(n))
  do i = 1, n
    x(i) = 1.0 + sin(real(i + 1000*rank))*0.5
  end do
  call MPI_Allreduce(dble(x), exact, n, MPI_DOUBLE_PRECISION, MPI_SUM, MPI_COMM_WORLD, error)
  call MPI_Allreduce(x, y, n, MPI_REAL, MPI_SUM, MPI_COMM_WORLD, error)
  worst = maxval(abs(y - exact)/exact)
  call MPI_Allreduce(MPI_IN_PLACE, x, n, MPI_REAL, MPI_SUM, MPI_COMM_WORLD, error)
  if (any(x /= y)) stop 3
  if (rank == 0) print '(a,es12.4)', 'worst ', worst
  call MPI_Finalize(error)
end program fortran_program
