#pragma once

// How the ranks of a job learn, without a collective of ours, whether all of them run this library with the same
// settings. Each publishes one line through the launcher before the barrier inside MPI_Init, and reads everybody's
// after it. A rank without us publishes nothing; then all read that, and all pass everything through.
namespace AIRamp::Interposer::agreement {

// Before the real MPI_Init: `line` is what will be published. Under Hydra, the launcher of MPICH and its relatives, it
// is put into Hydra's key-value space now; with Open MPI nothing happens yet.
void prepare(const char* line);

// In Open MPI's own PMIx_Commit inside MPI_Init: adds our line to what it publishes.
void publish_with_pmix();

// After the real MPI_Init. nullptr: all ranks 0 … size-1 of MPI_COMM_WORLD published the same line. Otherwise why not,
// as the end of a sentence.
const char* verdict(int size);

}  // namespace AIRamp::Interposer::agreement
