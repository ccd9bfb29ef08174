// The kernels of the model, for the module of bind.cpp.
#pragma once

#include <nanobind/nanobind.h>

void bind_kernels(nanobind::module_& m);
