// C = A B by one subgroup a workgroup, without shared memory and without a barrier.
//
// Each lane has 8 columns and ROWS rows of C. Of A it loads 8 elements of one row in as many as there are lanes, which it
// hands to all others; of B it loads its own 8 columns. B is packed: panels of as many columns as the subgroup has, each
// with its rows one after the other, up to a multiple of 8 with zeros.
//
// Each place of the code that loads or stores is a loop over lanes, with tests, in the code that some drivers make of it:
// there are as few as can be, or their compilers take minutes.
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#include "activations.glsl"
#include "gemm_push.glsl"

#ifdef ADDRESSED
#extension GL_KHR_shader_subgroup_ballot : require
// The place is the same for all lanes. Where subgroups have 16, a shuffle is a loop over them in some drivers' code.
#define OF_LANE(value, lane) subgroupBroadcast(value, lane)
#else
#define OF_LANE(value, lane) subgroupShuffle(value, lane)
#endif

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint ROWS = 32;
// Whether rows of A, and those of C and the residual, begin at multiples of 8 elements; and k, and n, is one.
layout(constant_id = 9) const bool A_ALIGNED = true;
layout(constant_id = 10) const bool C_ALIGNED = true;
const uint BLOCKS = (ROWS + gl_WorkGroupSize.x - 1) / gl_WorkGroupSize.x;

layout(std430, binding = 0) readonly buffer A1 { float a1[]; };
layout(std430, binding = 0) readonly buffer A4U { uvec4 a4u[]; };
layout(std430, binding = 0) readonly buffer AW { uint a_words[]; };
layout(std430, binding = 1) readonly buffer B4U { uvec4 b4u[]; };
layout(std430, binding = 1) readonly buffer B2U { uvec2 b2u[]; };
#ifdef WIDE
layout(std430, binding = 0) readonly buffer A8 { u64vec4 a8[]; };
layout(std430, binding = 1) readonly buffer B8 { u64vec4 b8[]; };
layout(std430, binding = 4) readonly buffer Residual8 { u64vec4 residual8[]; };
layout(std430, binding = 5) buffer C8 { u64vec4 c8[]; };
#else
layout(std430, binding = 4) readonly buffer Residual4 { vec4 residual4[]; };
layout(std430, binding = 0) readonly buffer A4 { vec4 a4[]; };
layout(std430, binding = 1) readonly buffer B4 { vec4 b4[]; };
#endif
layout(std430, binding = 4) readonly buffer Residual4U { uvec4 residual4u[]; };
layout(std430, binding = 5) buffer C4 { vec4 c4[]; };
layout(std430, binding = 5) buffer C4U { uvec4 c4u[]; };

#ifdef ADDRESSED
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer Floats { vec4 low; vec4 high; };
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer Longs { u64vec4 words; };
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer Words { uvec4 words; };
layout(buffer_reference, std430, buffer_reference_align = 8) readonly buffer Pair { uvec2 words; };

const uint A_BYTES = A_TYPE == F16 ? 2 : 4;
const uint B_BYTES = B_TYPE == I8 ? 1 : B_TYPE == F16 ? 2 : 4;
#endif

// An activation of many instructions is not repeated for each sum: it goes over what was written. So does a residual, as
// each place that loads is long in the code of some drivers; not to f16, which would be rounded twice.
bool later() {
    return ACTIVATION > RELU || (RESIDUAL && C_TYPE == F32);
}

struct Eight {
    vec4 low;
    vec4 high;
};

Eight of_halves(uvec4 words) {
    return Eight(vec4(unpackHalf2x16(words.x), unpackHalf2x16(words.y)),
                 vec4(unpackHalf2x16(words.z), unpackHalf2x16(words.w)));
}

vec4 of_bytes(uint word) {
    const int all = int(word);
    return vec4(ivec4(all << 24, all << 16, all << 8, all) >> 24);
}

#ifdef WIDE
Eight of_wide(u64vec4 words) {
    return Eight(vec4(uintBitsToFloat(unpack32(words.x)), uintBitsToFloat(unpack32(words.y))),
                 vec4(uintBitsToFloat(unpack32(words.z)), uintBitsToFloat(unpack32(words.w))));
}

u64vec4 to_wide(float value[8]) {
    return u64vec4(pack64(floatBitsToUint(vec2(value[0], value[1]))), pack64(floatBitsToUint(vec2(value[2], value[3]))),
                   pack64(floatBitsToUint(vec2(value[4], value[5]))), pack64(floatBitsToUint(vec2(value[6], value[7]))));
}
#endif

float a_at(uint index) {
    if (A_TYPE == F16) {
        const vec2 both = unpackHalf2x16(a_words[index >> 1]);
        return (index & 1) == 0 ? both.x : both.y;
    }
    return a1[index];
}

// Eight elements of a row of A that begins at `row`, from column `from`. Of eight that hold the end, those beyond are
// zeros; of eight that are all beyond nobody asks.
Eight load_a(uint row, uint from) {
    if (A_ALIGNED) {
        const uint at = (row + min(from, k - 8)) >> 3;
        if (A_TYPE == F16) {
            return of_halves(a4u[at]);
        }
#ifdef WIDE
        return of_wide(a8[at]);
#else
        return Eight(a4[2 * at], a4[2 * at + 1]);
#endif
    }
    float one[8];
    [[unroll]] for (uint u = 0; u < 8; u++) {
        const float found = a_at(row + min(from + u, k - 1));
        one[u] = from + u < k ? found : 0.0;
    }
    return Eight(vec4(one[0], one[1], one[2], one[3]), vec4(one[4], one[5], one[6], one[7]));
}

#ifdef ADDRESSED
// Words of 64 bits halve the gathers of B, and take some work to be parted; for the little that A is, they do not pay.
Eight gather_a(uint64_t from) {
    if (A_TYPE == F16) {
        return of_halves(Words(from).words);
    }
    Floats some = Floats(from);
    return Eight(some.low, some.high);
}

Eight gather_b(uint64_t from) {
    if (B_TYPE == F16) {
        return of_halves(Words(from).words);
    }
    if (B_TYPE == I8) {
        const uvec2 words = Pair(from).words;
        return Eight(of_bytes(words.x), of_bytes(words.y));
    }
    return of_wide(Longs(from).words);
}
#endif

Eight load_b(uint at) {
    if (B_TYPE == F16) {
        return of_halves(b4u[at]);
    }
    if (B_TYPE == I8) {
        const uvec2 words = b2u[at];
        return Eight(of_bytes(words.x), of_bytes(words.y));
    }
#ifdef WIDE
    return of_wide(b8[at]);
#else
    return Eight(b4[2 * at], b4[2 * at + 1]);
#endif
}

Eight load_residual(uint from) {
    if (C_TYPE == F16) {
        return of_halves(residual4u[from >> 3]);
    }
#ifdef WIDE
    return of_wide(residual8[from >> 3]);
#else
    return Eight(residual4[from >> 2], residual4[(from >> 2) + 1]);
#endif
}

void main() {
    const uint lane = gl_SubgroupInvocationID;
    const uint lanes = gl_WorkGroupSize.x;
    const uint first = gl_WorkGroupID.x * ROWS;
    const uint column = (gl_WorkGroupID.y * lanes + lane) * 8;
    const uint outer = gl_WorkGroupID.z / inner;
    const uint within = gl_WorkGroupID.z % inner;
    const uint a_from = a_offset + outer * a_outer + within * a_inner;
    // b_row is that of a panel: rows of 8 columns for each lane.
    uint b = ((b_offset + outer * b_outer + within * b_inner) >> 3) + gl_WorkGroupID.y * ((k + 7) & ~7u) * lanes + lane;

    vec4 low[ROWS];
    vec4 high[ROWS];
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
        low[r] = high[r] = vec4(0);
    }
    uint a_rows[BLOCKS];
    [[unroll]] for (uint j = 0; j < BLOCKS; j++) {
        a_rows[j] = a_from + min(first + j * lanes + lane, m - 1) * a_row;
    }
#ifdef ADDRESSED
    uint64_t a_places[BLOCKS];
    [[unroll]] for (uint j = 0; j < BLOCKS; j++) {
        a_places[j] = pack64(uvec2(address_0_low, address_0_high)) + uint64_t(a_rows[j]) * A_BYTES;
    }
    uint64_t b_place = pack64(uvec2(address_1_low, address_1_high)) + uint64_t(b) * (8 * B_BYTES);
#endif
    [[dont_unroll]] for (uint from = 0; from < k; from += 8) {
        float a[BLOCKS][8];
        [[unroll]] for (uint j = 0; j < BLOCKS; j++) {
#ifdef ADDRESSED
            const Eight some = gather_a(a_places[j]);
            a_places[j] += 8 * A_BYTES;
#else
            const Eight some = load_a(a_rows[j], from);
#endif
            [[unroll]] for (uint u = 0; u < 4; u++) {
                a[j][u] = some.low[u];
                a[j][u + 4] = some.high[u];
            }
        }
        // Four rows of B at a time, and of them the half that fits in registers beside the sums.
        [[unroll]] for (uint half_ = 0; half_ < 8; half_ += 4) {
            Eight some[4];
            [[unroll]] for (uint u = 0; u < 4; u++) {
#ifdef ADDRESSED
                some[u] = gather_b(b_place);
                b_place += lanes * (8 * B_BYTES);
#else
                some[u] = load_b(b);
                b += lanes;
#endif
            }
            [[unroll]] for (uint r = 0; r < ROWS; r++) {
                vec4 four = OF_LANE(a[r / lanes][half_], r % lanes) * some[0].low;
                [[unroll]] for (uint u = 1; u < 4; u++) {
                    four = fma(vec4(OF_LANE(a[r / lanes][half_ + u], r % lanes)), some[u].low, four);
                }
                low[r] += four;
            }
            [[unroll]] for (uint r = 0; r < ROWS; r++) {
                vec4 four = OF_LANE(a[r / lanes][half_], r % lanes) * some[0].high;
                [[unroll]] for (uint u = 1; u < 4; u++) {
                    four = fma(vec4(OF_LANE(a[r / lanes][half_ + u], r % lanes)), some[u].high, four);
                }
                high[r] += four;
            }
        }
    }

    const uint c_from = c_offset + outer * c_outer + within * c_inner;
    const uint r_from = r_offset + outer * r_outer + within * r_inner;
    if (column >= n) {
        return;
    }
    float factors[8];
    float shifts[8];
    [[unroll]] for (uint u = 0; u < 8; u++) {
        const uint here = min(column + u, n - 1);
        factors[u] = SCALE ? alpha * scales[scale_offset + here] : alpha;
        shifts[u] = BIAS ? bias[bias_offset + here] : 0.0;
    }
    [[unroll]] for (uint r = 0; r < ROWS; r++) {
        const uint row = first + r;
        if (row < m) {
            const uint to = c_from + row * c_row + column;
            const uint residue = r_from + row * r_row + column;
            Eight more = Eight(vec4(0), vec4(0));
            if (RESIDUAL && !later() && C_ALIGNED) {
                more = load_residual(residue);
            }
            float value[8];
            [[unroll]] for (uint u = 0; u < 8; u++) {
                value[u] = (u < 4 ? low[r][u & 3] : high[r][u & 3]) * factors[u];
                if (BIAS) {
                    value[u] += shifts[u];
                }
                if (!later()) {
                    value[u] = activated(ACTIVATION, value[u]);
                    if (RESIDUAL) {
                        value[u] += C_ALIGNED ? (u < 4 ? more.low[u & 3] : more.high[u & 3])
                                              : residual_at(residue + min(u, n - 1 - column));
                    }
                }
            }
            if (C_ALIGNED) {
                if (C_TYPE == F16) {
                    c4u[to >> 3] = uvec4(halves_of(value[0], value[1]), halves_of(value[2], value[3]),
                                         halves_of(value[4], value[5]), halves_of(value[6], value[7]));
                } else {
#ifdef WIDE
                    c8[to >> 3] = to_wide(value);
#else
                    c4[to >> 2] = vec4(value[0], value[1], value[2], value[3]);
                    c4[(to >> 2) + 1] = vec4(value[4], value[5], value[6], value[7]);
#endif
                }
            } else if (C_TYPE == F16) {
                [[unroll]] for (uint u = 0; u < 8; u += 2) {
                    if (column + u < n) {
                        c_words[(to + u) >> 1] = halves_of(value[u], value[u + 1]);
                    }
                }
            } else {
                [[unroll]] for (uint u = 0; u < 8; u++) {
                    if (column + u < n) {
                        c1[to + u] = value[u];
                    }
                }
            }
        }
    }
    if (later()) {
        const uint end = min(first + ROWS, m);
        [[dont_unroll]] for (uint row = first; row < end; row++) {
            const uint to = c_from + row * c_row + column;
            const uint residue = r_from + row * r_row;
#ifdef WIDE
            if (C_ALIGNED && C_TYPE == F32) {
                const Eight some = of_wide(c8[to >> 3]);
                Eight more = Eight(vec4(0), vec4(0));
                if (RESIDUAL) {
                    more = load_residual(residue + column);
                }
                float value[8];
                [[unroll]] for (uint u = 0; u < 8; u++) {
                    value[u] = activated(ACTIVATION, u < 4 ? some.low[u & 3] : some.high[u & 3]);
                    if (RESIDUAL) {
                        value[u] += u < 4 ? more.low[u & 3] : more.high[u & 3];
                    }
                }
                c8[to >> 3] = to_wide(value);
                continue;
            }
#endif
            [[dont_unroll]] for (uint u = 0; u < min(8, n - column); u += C_TYPE == F16 ? 2 : 1) {
                const uint here = column + u;
                if (C_TYPE == F16) {
                    const vec2 both = unpackHalf2x16(c_words[(to + u) >> 1]);
                    const float second = activated_at(both.y, min(here + 1, n - 1), residue);
                    c_words[(to + u) >> 1] = halves_of(activated_at(both.x, here, residue), second);
                } else {
                    c1[to + u] = activated_at(c1[to + u], here, residue);
                }
            }
        }
    }
}
