// All kernels that are templates over vectors, for one instruction set; in the order of kernel_table.h.
#pragma once

#include "attention.h"
#include "linear.h"
#include "plain.h"
#include "sampling.h"
#include "scan_backward.h"

#define SAMBAY_TEMPLATE_KERNELS(V)                                                                                     \
    .linear = linear_kernel<V>, .plain_linear = plain_kernel<V>, .mlp = mlp_kernel<V>, .embedding_rows = rows_kernel<V>, \
    .causal_conv = conv_kernel<V>, .selective_scan = scan_kernel<V>, .plain_scan = plain_scan_kernel<V>,                \
    .scan_backward = scan_backward_kernel<V>, .window_attention = window_kernel<V>,                                     \
    .shared_attention = shared_kernel<V>, .keep = keep_kernel<V>, .add_norm = norm_kernel<V>,                           \
    .lookup = lookup_kernel<V>, .scale = scale_kernel<V>, .gate = gate_kernel<V>, .choose = choose_kernel<V>, .top_logprobs = top_logprobs_kernel<V>
