// How many threads are worth having.
#pragma once

namespace sambay {

// CPUs that this process may use, the cores that they are, and the CPUs' worth of time that its cgroups grant (0: no
// limit). What cannot be found out counts as no limit.
struct Cores {
    int cpus, physical;
    double quota;
};
Cores available_cores();

// One thread per physical core, within the quota.
int default_threads();

}  // namespace sambay
