// C = A B by cooperative matrices of 16 x 16 x 16, fp16 with sums in fp32. A subgroup makes 16 x 16 of C. k is a multiple
// of 16; m is at least 16, n too and a multiple of 8; rows of A and B begin at multiples of 8 elements. The last matrices
// of C begin where they still fit, and what others have is not written again.
// target: vulkan1.2
#version 450
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_EXT_shader_16bit_storage : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#pragma use_vulkan_memory_model
#include "activations.glsl"
#include "gemm_push.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint SUBGROUPS = 4;

layout(std430, binding = 0) readonly buffer A { float16_t a[]; };
layout(std430, binding = 1) readonly buffer B { float16_t b[]; };

shared float results[SUBGROUPS * 256];

void main() {
    const uint outer = gl_WorkGroupID.z / inner;
    const uint within = gl_WorkGroupID.z % inner;
    const uint own_row = gl_WorkGroupID.y * 16;
    const uint own_column = (gl_WorkGroupID.x * SUBGROUPS + gl_SubgroupID) * 16;
    const uint first_row = min(own_row, m - 16);
    const uint first_column = min(own_column, n - 16);
    const uint a_from = a_offset + outer * a_outer + within * a_inner + first_row * a_row;
    const uint b_from = b_offset + outer * b_outer + within * b_inner + first_column;

    coopmat<float, gl_ScopeSubgroup, 16, 16, gl_MatrixUseAccumulator> sums =
        coopmat<float, gl_ScopeSubgroup, 16, 16, gl_MatrixUseAccumulator>(0.0);
    [[dont_unroll]] for (uint depth = 0; depth < k; depth += 16) {
        coopmat<float16_t, gl_ScopeSubgroup, 16, 16, gl_MatrixUseA> some_a;
        coopmat<float16_t, gl_ScopeSubgroup, 16, 16, gl_MatrixUseB> some_b;
        coopMatLoad(some_a, a, a_from + depth, a_row, gl_CooperativeMatrixLayoutRowMajor);
        coopMatLoad(some_b, b, b_from + depth * b_row, b_row, gl_CooperativeMatrixLayoutRowMajor);
        sums = coopMatMulAdd(some_a, some_b, sums);
    }
    // Which element an invocation holds is the driver's to know: they go through shared memory.
    const uint own = gl_SubgroupID * 256;
    coopMatStore(sums, results, own, 16, gl_CooperativeMatrixLayoutRowMajor);
    barrier();
    const uint c_from = c_offset + outer * c_outer + within * c_inner;
    const uint r_from = r_offset + outer * r_outer + within * r_inner;
    const uint each = C_TYPE == F16 ? 2 : 1;
    for (uint i = gl_SubgroupInvocationID * each; i < 256; i += gl_SubgroupSize * each) {
        const uint row = first_row + i / 16;
        const uint column = first_column + i % 16;
        if (row < own_row || column < own_column) {
            continue;
        }
        const uint to = c_from + row * c_row + column;
        const uint residue = r_from + row * r_row;
        const float value = activated_at(biased(results[own + i], column), column, residue);
        if (C_TYPE == F16) {
            const float next = activated_at(biased(results[own + i + 1], column + 1), column + 1, residue);
            c_words[to >> 1] = halves_of(value, next);
        } else {
            c1[to] = value;
        }
    }
}
