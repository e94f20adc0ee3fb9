// aivmm-plugin-host SUBJECT: the process in which an isolated backend runs. Started by the library with its socket as
// descriptor 3; of no use by hand.
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>

#include "hal/isolate/isolate.hpp"

int main(int argc, char** argv) {
  struct stat facts {};
  if (argc != 2 || fstat(3, &facts) != 0 || !S_ISSOCK(facts.st_mode)) {
    std::fputs("aivmm-plugin-host: started by AI VMM for the setting `isolate`, and of no use by hand.\n", stderr);
    return 2;
  }
  _exit(ai_vmm::isolate::serve(argv[1], 3));  // threads of contexts may still stand in the plugin
}
