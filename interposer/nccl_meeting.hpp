#pragma once

#include "calls.hpp"

// How the ranks of an NCCL communicator learn, without a collective of ours, whether all of them run this library with
// the same settings. Who makes a unique id listens on a port and writes it into the id's unused last bytes; all ranks
// get those with the id. A rank says what it runs before the real ncclCommInitRank, which returns nowhere until all
// ranks have come to it: when the first rank is back, everybody who has us has spoken. If somebody is missing by then,
// or speaks otherwise, the answer to all is no; else it is yes, once all are back.
namespace AIRamp::Interposer::meeting {

// After the real ncclGetUniqueId, which was given zeros. Whether others can now meet here.
bool offer(NcclId* id);

// Before the real initialisation, with everything that compressing needs in hand: from here on the answer must be asked
// for and obeyed. -1: there is nobody to say it to.
int speak(const NcclId& id, int rank, int ranks, const char* line);

// After the real initialisation, for all ranks of this thread before anybody asks for the answer.
void come_back(int meeting);
// Waits for it. The meeting is over then.
bool answer(int meeting);
// Instead of both, after the real initialisation has failed.
void leave(int meeting);

}  // namespace AIRamp::Interposer::meeting
