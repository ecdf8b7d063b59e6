// softmax(scale * Q K^T + mask) V, without ever holding the scores: for each block of keys the sums so far are scaled to
// the greatest score seen (online softmax: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018;
// Dao et al., "FlashAttention", 2022).
//
// A workgroup is one subgroup and has ROWS queries of a head. For the scores a lane has KEYS keys, for the sums it has
// EACH of a head's elements; what the others need is handed over within the subgroup, without barriers.
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#include "halves.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint ROWS = 16;
layout(constant_id = 2) const uint KEYS = 2;
// Elements of a head that a lane has, and how many are read at a time: 4 where all rows begin at a multiple of 4; 8 where
// all begin at a multiple of 8, and words are wide.
layout(constant_id = 3) const uint EACH = 8;
layout(constant_id = 4) const uint VECTOR = 4;
layout(constant_id = 5) const bool HALF = false;
layout(constant_id = 6) const bool MASK = false;
layout(constant_id = 7) const bool CAUSAL = false;

layout(std430, binding = 0) readonly buffer Q1 { float q1[]; };
layout(std430, binding = 0) readonly buffer Q4 { vec4 q4[]; };
layout(std430, binding = 0) readonly buffer QW { uint q_words[]; };
layout(std430, binding = 0) readonly buffer QW2 { uvec2 q_words2[]; };
#ifdef WIDE
layout(std430, binding = 0) readonly buffer QLongs { u64vec4 q8[]; };
layout(std430, binding = 1) readonly buffer KLongs { u64vec4 k8[]; };
layout(std430, binding = 2) readonly buffer VLongs { u64vec4 v8[]; };
layout(std430, binding = 4) writeonly buffer OLongs { u64vec4 o8[]; };
#endif
layout(std430, binding = 1) readonly buffer K1 { float k1[]; };
layout(std430, binding = 1) readonly buffer K4 { vec4 k4[]; };
layout(std430, binding = 1) readonly buffer KW { uint k_words[]; };
layout(std430, binding = 1) readonly buffer KW2 { uvec2 k_words2[]; };
layout(std430, binding = 2) readonly buffer V1 { float v1[]; };
layout(std430, binding = 2) readonly buffer V4 { vec4 v4[]; };
layout(std430, binding = 2) readonly buffer VW { uint v_words[]; };
layout(std430, binding = 2) readonly buffer VW2 { uvec2 v_words2[]; };
layout(std430, binding = 3) readonly buffer Mask { float mask[]; };
layout(std430, binding = 4) writeonly buffer O1 { float o1[]; };
layout(std430, binding = 4) writeonly buffer O4 { vec4 o4[]; };
layout(std430, binding = 4) writeonly buffer OW { uint o_words[]; };

// Offsets and strides count elements.
layout(push_constant) uniform Push {
    uint queries;
    uint keys;
    uint size;
    uint heads;
    uint sharing;
    float scale;
    // A query sees the keys up to its own number and `behind`.
    int behind;
    uint q_offset;
    uint q_row;
    uint q_head;
    uint q_batch;
    uint k_offset;
    uint k_row;
    uint k_head;
    uint k_batch;
    uint v_offset;
    uint v_row;
    uint v_head;
    uint v_batch;
    uint o_offset;
    uint o_row;
    uint o_head;
    uint o_batch;
    uint m_offset;
    uint m_row;
    uint m_column;
    uint m_head;
    uint m_batch;
#ifdef ADDRESSED
    uint address_1_low;
    uint address_1_high;
    uint address_2_low;
    uint address_2_high;
#endif
};

#ifdef ADDRESSED
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer Longs { u64vec4 words; };
#define K8(at) Longs(pack64(uvec2(address_1_low, address_1_high)) + uint64_t(at) * 32).words
#define V8(at) Longs(pack64(uvec2(address_2_low, address_2_high)) + uint64_t(at) * 32).words
#else
#define K8(at) k8[at]
#define V8(at) v8[at]
#endif
#define Q8(at) q8[at]

#ifdef WIDE
#define EIGHT_OF(EIGHT)                                                                            \
        if (VECTOR == 8) {                                                                         \
            [[unroll]] for (uint u = 0; u < EACH; u += 8) {                                        \
                const u64vec4 words = EIGHT((row + min(from + u, size - 8)) >> 3);                 \
                [[unroll]] for (uint i = 0; i < 4; i++) {                                          \
                    const vec2 both = uintBitsToFloat(unpack32(words[i]));                         \
                    some[u + 2 * i] = from + u < size ? both.x : 0.0;                              \
                    some[u + 2 * i + 1] = from + u < size ? both.y : 0.0;                          \
                }                                                                                  \
            }                                                                                      \
        } else
#else
#define EIGHT_OF(EIGHT)
#endif

#define LOADER(NAME, ONE, FOUR, EIGHT, WORDS, WORDS2)                                              \
    void NAME(uint row, uint from, out float some[EACH]) {                                         \
        EIGHT_OF(EIGHT)                                                                            \
        if (VECTOR == 4) {                                                                         \
            [[unroll]] for (uint u = 0; u < EACH; u += 4) {                                        \
                const uint at = (row + min(from + u, size - 4)) >> 2;                              \
                vec4 found;                                                                        \
                if (HALF) {                                                                        \
                    const uvec2 both = WORDS2[at];                                                 \
                    found = vec4(unpackHalf2x16(both.x), unpackHalf2x16(both.y));                  \
                } else {                                                                           \
                    found = FOUR[at];                                                              \
                }                                                                                  \
                [[unroll]] for (uint i = 0; i < 4; i++) {                                          \
                    some[u + i] = from + u < size ? found[i] : 0.0;                                \
                }                                                                                  \
            }                                                                                      \
        } else {                                                                                   \
            [[unroll]] for (uint u = 0; u < EACH; u++) {                                           \
                const uint at = row + min(from + u, size - 1);                                     \
                float found;                                                                       \
                if (HALF) {                                                                        \
                    const vec2 both = unpackHalf2x16(WORDS[at >> 1]);                              \
                    found = (at & 1) == 0 ? both.x : both.y;                                       \
                } else {                                                                           \
                    found = ONE[at];                                                               \
                }                                                                                  \
                some[u] = from + u < size ? found : 0.0;                                           \
            }                                                                                      \
        }                                                                                          \
    }

LOADER(load_q, q1, q4, Q8, q_words, q_words2)
LOADER(load_k, k1, k4, K8, k_words, k_words2)
LOADER(load_v, v1, v4, V8, v_words, v_words2)

#define LOWEST uintBitsToFloat(0xff800000u)
#define LEAST uintBitsToFloat(0xff7fffffu)
const float LOG2E = 1.4426950408889634;

// Where there is a mask, differences may be beyond what a driver computes exp2 of.
float power_of_two(float x) {
    return exp2(MASK && x < -200.0 ? -200.0 : x);
}

// Over the subgroup. Written out: a loop here would keep the loop over rows from being unrolled.
#define EVERY(NAME, COMBINED)                                                                      \
    float NAME(float value) {                                                                      \
        float other;                                                                               \
        if (gl_WorkGroupSize.x > 1) { other = subgroupShuffleXor(value, 1); value = COMBINED; }    \
        if (gl_WorkGroupSize.x > 2) { other = subgroupShuffleXor(value, 2); value = COMBINED; }    \
        if (gl_WorkGroupSize.x > 4) { other = subgroupShuffleXor(value, 4); value = COMBINED; }    \
        if (gl_WorkGroupSize.x > 8) { other = subgroupShuffleXor(value, 8); value = COMBINED; }    \
        if (gl_WorkGroupSize.x > 16) { other = subgroupShuffleXor(value, 16); value = COMBINED; }  \
        if (gl_WorkGroupSize.x > 32) { other = subgroupShuffleXor(value, 32); value = COMBINED; }  \
        return value;                                                                              \
    }

EVERY(greatest, max(value, other))
EVERY(total, value + other)

void main() {
    const uint lane = gl_SubgroupInvocationID;
    const uint lanes = gl_WorkGroupSize.x;
    const uint head = gl_WorkGroupID.y % heads;
    const uint batch = gl_WorkGroupID.y / heads;
    const uint first = gl_WorkGroupID.x * ROWS;
    const uint q_from = q_offset + head * q_head + batch * q_batch;
    const uint k_from = k_offset + head / sharing * k_head + batch * k_batch;
    const uint v_from = v_offset + head / sharing * v_head + batch * v_batch;
    const uint m_from = m_offset + head * m_head + batch * m_batch;
    const uint own = lane * EACH;

    float q[ROWS][EACH];
    float sums[ROWS][EACH];
    float top[ROWS];
    float weights[ROWS];
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
        float some[EACH];
        load_q(q_from + min(first + r, queries - 1) * q_row, own, some);
        [[unroll]] for (uint u = 0; u < EACH; u++) {
            // In powers of 2, which is what drivers compute.
            q[r][u] = some[u] * (scale * LOG2E);
            sums[r][u] = 0.0;
        }
        top[r] = LOWEST;
        weights[r] = 0.0;
    }

    // A causal block of queries has no keys behind its last one's.
    uint end = keys;
    if (CAUSAL) {
        end = uint(clamp(int(min(first + ROWS, queries)) + behind, 0, int(keys)));
    }
    const uint parts = (size + EACH - 1) / EACH;
    [[dont_unroll]] for (uint from = 0; from < end; from += lanes * KEYS) {
        float scores[ROWS][KEYS];
        float of_block[ROWS][EACH];
        float scaled[ROWS];
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            [[unroll]] for (uint j = 0; j < KEYS; j++) {
                scores[r][j] = 0.0;
            }
        }
        [[dont_unroll]] for (uint part = 0; part < parts; part++) {
            float k[KEYS][EACH];
            [[unroll]] for (uint j = 0; j < KEYS; j++) {
                float some[EACH];
                load_k(k_from + min(from + j * lanes + lane, keys - 1) * k_row, part * EACH, some);
                [[unroll]] for (uint u = 0; u < EACH; u++) {
                    k[j][u] = some[u];
                }
            }
            [[unroll]] for (uint r = 0; r < ROWS; r++) {
                [[unroll]] for (uint u = 0; u < EACH; u++) {
                    const float handed = subgroupShuffle(q[r][u], part);
                    [[unroll]] for (uint j = 0; j < KEYS; j++) {
                        scores[r][j] = fma(handed, k[j][u], scores[r][j]);
                    }
                }
            }
        }
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            float most = LOWEST;
            [[unroll]] for (uint j = 0; j < KEYS; j++) {
                const uint key = from + j * lanes + lane;
                const uint row = min(first + r, queries - 1);
                if (MASK) {
                    const float given = mask[m_from + row * m_row + min(key, keys - 1) * m_column];
                    const float more = given * LOG2E;
                    // The lowest float, which exporters mask with, stays finite: where all keys have it all count.
                    scores[r][j] += more == LOWEST && given != LOWEST ? LEAST : more;
                }
                if (key >= end || (CAUSAL && int(key) > int(row) + behind)) {
                    scores[r][j] = LOWEST;
                }
                most = max(most, scores[r][j]);
            }
            // A NaN need not pass here: it comes back by exp2.
            const float before = top[r];
            top[r] = max(before, greatest(most));
            // While all keys are masked the greatest is minus infinity, from which nothing can be taken.
            const float base = top[r] == LOWEST ? 0.0 : top[r];
            const float less = power_of_two(before - base);
            float more = 0.0;
            [[unroll]] for (uint j = 0; j < KEYS; j++) {
                // Some drivers do not give 0 for minus infinity.
                scores[r][j] = scores[r][j] == LOWEST ? 0.0 : power_of_two(scores[r][j] - base);
                more += scores[r][j];
            }
            weights[r] = weights[r] * less + more;
            scaled[r] = less;
            [[unroll]] for (uint u = 0; u < EACH; u++) {
                of_block[r][u] = 0.0;
            }
        }
        // One lane's keys at a time, so that sums change once for all of them; and the block's by themselves first: what
        // is summed up one after another over all keys has a greater error.
        const uint others = min(lanes, end - from);
        [[dont_unroll]] for (uint other = 0; other < others; other++) {
            float v[KEYS][EACH];
            [[unroll]] for (uint j = 0; j < KEYS; j++) {
                const uint key = from + j * lanes + other;
                float some[EACH];
                load_v(v_from + min(key, end - 1) * v_row, own, some);
                [[unroll]] for (uint u = 0; u < EACH; u++) {
                    v[j][u] = key < end ? some[u] : 0.0;
                }
            }
            [[unroll]] for (uint r = 0; r < ROWS; r++) {
                [[unroll]] for (uint j = 0; j < KEYS; j++) {
                    const float weight = subgroupShuffle(scores[r][j], other);
                    [[unroll]] for (uint u = 0; u < EACH; u++) {
                        of_block[r][u] = fma(weight, v[j][u], of_block[r][u]);
                    }
                }
            }
        }
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            [[unroll]] for (uint u = 0; u < EACH; u++) {
                sums[r][u] = fma(sums[r][u], scaled[r], of_block[r][u]);
            }
        }
    }

    const uint o_from = o_offset + head * o_head + batch * o_batch;
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
        const float whole = total(weights[r]);
        const uint row = first + r;
        if (row < queries) {
            const uint to = o_from + row * o_row + own;
            float done[EACH];
            [[unroll]] for (uint u = 0; u < EACH; u++) {
                done[u] = sums[r][u] / whole;
            }
            if (HALF) {
                // Two elements of a word are one lane's: EACH is even.
                [[unroll]] for (uint u = 0; u < EACH; u += 2) {
                    if (own + u < size) {
                        o_words[(to + u) >> 1] = halves_of(done[u], done[min(u + 1, EACH - 1)]);
                    }
                }
#ifdef WIDE
            } else if (VECTOR == 8) {
                [[unroll]] for (uint u = 0; u < EACH; u += 8) {
                    if (own + u < size) {
                        u64vec4 words;
                        [[unroll]] for (uint i = 0; i < 4; i++) {
                            words[i] = pack64(floatBitsToUint(vec2(done[u + 2 * i], done[u + 2 * i + 1])));
                        }
                        o8[(to + u) >> 3] = words;
                    }
                }
#endif
            } else if (VECTOR >= 4) {
                [[unroll]] for (uint u = 0; u < EACH; u += 4) {
                    if (own + u < size) {
                        o4[(to + u) >> 2] = vec4(done[u], done[u + 1], done[u + 2], done[u + 3]);
                    }
                }
            } else {
                [[unroll]] for (uint u = 0; u < EACH; u++) {
                    if (own + u < size) {
                        o1[to + u] = done[u];
                    }
                }
            }
        }
    }
}
