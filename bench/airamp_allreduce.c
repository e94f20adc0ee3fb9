// Times MPI_Allreduce of float32, for bench/airamp_mpi.py. airamp_allreduce BYTES:REPETITIONS …: for each size one line
// "BYTES SECONDS … | INTERFACE_BYTES": the slowest rank's time for each repetition, after one that warms up and of which the
// bytes that all ranks' network interfaces sent are told.

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Bytes sent by all interfaces but the loopback.
static double sent(void) {
  double sum = 0;
  char line[512];
  FILE* file = fopen("/proc/net/dev", "r");
  while (file && fgets(line, sizeof line, file)) {
    char* numbers = strchr(line, ':');
    double column[9] = {0};
    if (!numbers || strstr(line, " lo:")) continue;
    sscanf(numbers + 1, "%lf %lf %lf %lf %lf %lf %lf %lf %lf", column, column + 1, column + 2, column + 3, column + 4,
           column + 5, column + 6, column + 7, column + 8);
    sum += column[8];
  }
  if (file) fclose(file);
  return sum;
}

int main(int argc, char** argv) {
  int rank;
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  for (int a = 1; a < argc; a++) {
    size_t bytes = strtoull(argv[a], NULL, 10);
    int count = (int)(bytes / 4), repetitions = atoi(strchr(argv[a], ':') + 1);
    float *x = malloc(bytes), *y = malloc(bytes);
    srand(rank + 1);
    for (int i = 0; i < count; i++) x[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    if (rank == 0) printf("%zu", bytes);
    double wire = 0;
    for (int r = -2; r < repetitions; r++) {
      MPI_Barrier(MPI_COMM_WORLD);
      double before = r == -1 ? sent() : 0, start = MPI_Wtime(), slowest;
      MPI_Allreduce(x, y, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
      double took = MPI_Wtime() - start;
      MPI_Reduce(&took, &slowest, 1, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
      if (r == -1) {
        double mine = sent() - before;
        MPI_Reduce(&mine, &wire, 1, MPI_DOUBLE, MPI_SUM, 0, MPI_COMM_WORLD);
      }
      if (r >= 0 && rank == 0) printf(" %.9f", slowest);
    }
    if (rank == 0) printf(" | %.0f\n", wire);
    free(x);
    free(y);
  }
  MPI_Finalize();
  return 0;
}
