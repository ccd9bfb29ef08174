// What this CPU can do, and which kernels it therefore runs.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "kernel_table.h"

namespace sambay {

// An instruction set on this machine: may it run here, and if not, why not.
struct Isa {
    std::string name;
    const KernelTable* table;  // null: not built
    std::string obstacle;      // empty: it runs here
};

// From the plainest to the best, those of this architecture first; asked of the CPU once.
const std::vector<Isa>& instruction_sets();

// The features that were looked for and found, by the names that Linux gives them.
std::vector<std::string> cpu_features();

// Takes every kernel from the best instruction set, or, if `forced` is not empty, from that one and the plainer ones.
// Not while a kernel runs. Throws std::invalid_argument, with a sentence that follows "SAMBAY_ISA=...".
void use_isa(const std::string& forced);

// The chosen instruction set; the kernels, and where each came from, by name. Before any choice: the best.
const std::string& isa_in_use();
const KernelTable& kernels();
std::vector<std::pair<std::string, std::string>> kernel_origins();

}  // namespace sambay
