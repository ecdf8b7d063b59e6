// C = A B by tiles in shared memory: a workgroup makes TILE_M x TILE_N of C, an invocation EACH_M x EACH_N of it, and
// TILE_K columns of A with as many rows of B are loaded at a time. A, B and C have any strides.
#version 450
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#define STRIDED
#include "activations.glsl"
#include "gemm_push.glsl"

layout(local_size_x_id = 0, local_size_y_id = 1) in;
layout(constant_id = 9) const uint TILE_M = 64;
layout(constant_id = 10) const uint TILE_N = 64;
layout(constant_id = 11) const uint TILE_K = 16;
layout(constant_id = 12) const uint EACH_M = 4;
layout(constant_id = 13) const uint EACH_N = 4;
// Whether four elements of a row lie together, at a multiple of four.
layout(constant_id = 14) const bool A_VECTORS = false;
layout(constant_id = 15) const bool B_VECTORS = false;

layout(std430, binding = 0) readonly buffer A1 { float a1[]; };
layout(std430, binding = 0) readonly buffer A4 { vec4 a4[]; };
layout(std430, binding = 0) readonly buffer AW { uint a_words[]; };
layout(std430, binding = 1) readonly buffer B1 { float b1[]; };
layout(std430, binding = 1) readonly buffer B4 { vec4 b4[]; };
layout(std430, binding = 1) readonly buffer BW { uint b_words[]; };

// A is kept with k first, so that an invocation's rows lie together; one more, so that neighbours lie in other banks.
shared float some_a[TILE_K * (TILE_M + 1)];
shared float some_b[TILE_K * TILE_N];

float a_at(uint index) {
    if (A_TYPE == F16) {
        const vec2 both = unpackHalf2x16(a_words[index >> 1]);
        return (index & 1) == 0 ? both.x : both.y;
    }
    return a1[index];
}

float b_at(uint index) {
    if (B_TYPE == F16) {
        const vec2 both = unpackHalf2x16(b_words[index >> 1]);
        return (index & 1) == 0 ? both.x : both.y;
    }
    if (B_TYPE == I8) {
        return float(int(b_words[index >> 2] << (24 - 8 * (index & 3))) >> 24);
    }
    return b1[index];
}

void load_a(uint from, uint first, uint depth, uint here, uint count) {
    if (A_VECTORS) {
        for (uint i = here; i < TILE_M * TILE_K / 4; i += count) {
            const uint row = i / (TILE_K / 4);
            const uint column = i % (TILE_K / 4) * 4;
            const bool inside = first + row < m && depth + column < k;
            const vec4 found = inside ? a4[(from + (first + row) * a_row + depth + column) >> 2] : vec4(0);
            [[unroll]] for (uint u = 0; u < 4; u++) {
                some_a[(column + u) * (TILE_M + 1) + row] = found[u];
            }
        }
    } else {
        for (uint i = here; i < TILE_M * TILE_K; i += count) {
            const uint row = i / TILE_K;
            const uint column = i % TILE_K;
            const bool inside = first + row < m && depth + column < k;
            some_a[column * (TILE_M + 1) + row] =
                inside ? a_at(from + (first + row) * a_row + (depth + column) * a_column) : 0.0;
        }
    }
}

void load_b(uint from, uint first, uint depth, uint here, uint count) {
    if (B_VECTORS) {
        for (uint i = here; i < TILE_K * TILE_N / 4; i += count) {
            const uint row = i / (TILE_N / 4);
            const uint column = i % (TILE_N / 4) * 4;
            const bool inside = depth + row < k && first + column < n;
            const vec4 found = inside ? b4[(from + (depth + row) * b_row + first + column) >> 2] : vec4(0);
            [[unroll]] for (uint u = 0; u < 4; u++) {
                some_b[row * TILE_N + column + u] = found[u];
            }
        }
    } else {
        for (uint i = here; i < TILE_K * TILE_N; i += count) {
            const uint row = i / TILE_N;
            const uint column = i % TILE_N;
            const bool inside = depth + row < k && first + column < n;
            some_b[i] = inside ? b_at(from + (depth + row) * b_row + (first + column) * b_column) : 0.0;
        }
    }
}

void main() {
    const uint here = gl_LocalInvocationIndex;
    const uint count = gl_WorkGroupSize.x * gl_WorkGroupSize.y;
    const uint outer = gl_WorkGroupID.z / inner;
    const uint within = gl_WorkGroupID.z % inner;
    const uint first_row = gl_WorkGroupID.y * TILE_M;
    const uint first_column = gl_WorkGroupID.x * TILE_N;
    const uint a_from = a_offset + outer * a_outer + within * a_inner;
    const uint b_from = b_offset + outer * b_outer + within * b_inner;
    const uint row = gl_LocalInvocationID.y * EACH_M;

    float sums[EACH_M][EACH_N];
    [[unroll]] for (uint r = 0; r < EACH_M; r++) {
        [[unroll]] for (uint c = 0; c < EACH_N; c++) {
            sums[r][c] = 0.0;
        }
    }
    for (uint depth = 0; depth < k; depth += TILE_K) {
        load_a(a_from, first_row, depth, here, count);
        load_b(b_from, first_column, depth, here, count);
        barrier();
        [[dont_unroll]] for (uint i = 0; i < TILE_K; i++) {
            float a[EACH_M];
            float b[EACH_N];
            [[unroll]] for (uint r = 0; r < EACH_M; r++) {
                a[r] = some_a[i * (TILE_M + 1) + row + r];
            }
            // An invocation's columns are apart, so that neighbours read neighbours.
            [[unroll]] for (uint c = 0; c < EACH_N; c++) {
                b[c] = some_b[i * TILE_N + gl_LocalInvocationID.x + c * gl_WorkGroupSize.x];
            }
            [[unroll]] for (uint r = 0; r < EACH_M; r++) {
                [[unroll]] for (uint c = 0; c < EACH_N; c++) {
                    sums[r][c] = fma(a[r], b[c], sums[r][c]);
                }
            }
        }
        barrier();
    }

    const uint c_from = c_offset + outer * c_outer + within * c_inner;
    const uint r_from = r_offset + outer * r_outer + within * r_inner;
    if (C_TYPE == F16) {
        // Two neighbours share a word, so they are written by one invocation, by way of shared memory.
        [[unroll]] for (uint r = 0; r < EACH_M; r++) {
            [[unroll]] for (uint c = 0; c < EACH_N; c++) {
                some_b[gl_LocalInvocationID.y * TILE_N + gl_LocalInvocationID.x + c * gl_WorkGroupSize.x] = sums[r][c];
            }
            barrier();
            for (uint i = here; i < gl_WorkGroupSize.y * TILE_N / 2; i += count) {
                const uint line = first_row + i / (TILE_N / 2) * EACH_M + r;
                const uint column = first_column + i % (TILE_N / 2) * 2;
                if (line < m && column < n) {
                    const uint residue = r_from + line * r_row;
                    const uint next = min(column + 1, n - 1);
                    c_words[(c_from + line * c_row + column) >> 1] = halves_of(
                        activated_at(biased(some_b[2 * i], column), column, residue),
                        activated_at(biased(some_b[2 * i + 1], next), next, residue));
                }
            }
            barrier();
        }
        return;
    }
    [[unroll]] for (uint r = 0; r < EACH_M; r++) {
        [[unroll]] for (uint c = 0; c < EACH_N; c++) {
            const uint line = first_row + row + r;
            const uint column = first_column + gl_LocalInvocationID.x + c * gl_WorkGroupSize.x;
            if (line < m && column < n) {
                c1[c_from + line * c_row + column] =
                    activated_at(biased(sums[r][c], column), column, r_from + line * r_row);
            }
        }
    }
}
