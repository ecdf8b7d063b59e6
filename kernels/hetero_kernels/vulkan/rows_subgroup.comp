// Layer and RMS normalisation of rows in order, by one subgroup a workgroup, without shared memory and without a barrier:
// for drivers that load each component by itself, so that a lane holds its part of a row, 8 elements a load.
#version 450
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_EXT_control_flow_attributes : require

layout(local_size_x_id = 0) in;
// Rows of a workgroup, and parts of 8 elements that a lane has of each.
layout(constant_id = 1) const uint ROWS = 16;
layout(constant_id = 2) const uint PARTS = 6;
layout(constant_id = 3) const bool WEIGHT = false;
layout(constant_id = 4) const bool BIAS = false;
// Whether the mean is taken away.
layout(constant_id = 5) const bool CENTRED = true;

layout(std430, binding = 0) readonly buffer X { u64vec4 x8[]; };
layout(std430, binding = 1) readonly buffer Weight { float weight[]; };
layout(std430, binding = 2) readonly buffer Bias { float bias[]; };
layout(std430, binding = 3) writeonly buffer Y { u64vec4 y8[]; };

// Offsets count elements; those of x and y are multiples of 8, and so is a row's length.
layout(push_constant) uniform Push {
    uint rows;
    uint length_;
    uint x_offset;
    uint y_offset;
    uint weight_offset;
    uint bias_offset;
    float epsilon;
};

// Written out: a loop here would keep the loops around it from being unrolled.
float total(float value) {
    if (gl_WorkGroupSize.x > 1) { value += subgroupShuffleXor(value, 1); }
    if (gl_WorkGroupSize.x > 2) { value += subgroupShuffleXor(value, 2); }
    if (gl_WorkGroupSize.x > 4) { value += subgroupShuffleXor(value, 4); }
    if (gl_WorkGroupSize.x > 8) { value += subgroupShuffleXor(value, 8); }
    if (gl_WorkGroupSize.x > 16) { value += subgroupShuffleXor(value, 16); }
    if (gl_WorkGroupSize.x > 32) { value += subgroupShuffleXor(value, 32); }
    return value;
}

float sum_of(vec4 value) {
    return (value.x + value.y) + (value.z + value.w);
}

vec4 of_words(uint64_t first, uint64_t second) {
    return vec4(uintBitsToFloat(unpack32(first)), uintBitsToFloat(unpack32(second)));
}

void main() {
    const uint lane = gl_SubgroupInvocationID;
    const uint lanes = gl_WorkGroupSize.x;
    const uint first = gl_WorkGroupID.x * ROWS;
    const uint end = min(first + ROWS, rows);
    vec4 factors[2 * PARTS];
    vec4 shifts[2 * PARTS];
    [[unroll]] for (uint p = 0; p < PARTS; p++) {
        const uint at = min((p * lanes + lane) * 8, length_ - 8);
        [[unroll]] for (uint u = 0; u < 4; u++) {
            factors[2 * p][u] = WEIGHT ? weight[weight_offset + at + u] : 1.0;
            factors[2 * p + 1][u] = WEIGHT ? weight[weight_offset + at + 4 + u] : 1.0;
            shifts[2 * p][u] = BIAS ? bias[bias_offset + at + u] : 0.0;
            shifts[2 * p + 1][u] = BIAS ? bias[bias_offset + at + 4 + u] : 0.0;
        }
    }
    [[dont_unroll]] for (uint row = first; row < end; row++) {
        vec4 x[2 * PARTS];
        float own = 0.0;
        [[unroll]] for (uint p = 0; p < PARTS; p++) {
            const uint at = (p * lanes + lane) * 8;
            const u64vec4 words = x8[(x_offset + row * length_ + min(at, length_ - 8)) >> 3];
            x[2 * p] = of_words(words.x, words.y);
            x[2 * p + 1] = of_words(words.z, words.w);
            own += at < length_ ? sum_of(x[2 * p]) + sum_of(x[2 * p + 1]) : 0.0;
        }
        const float mean = CENTRED ? total(own) / float(length_) : 0.0;
        float squares = 0.0;
        [[unroll]] for (uint p = 0; p < PARTS; p++) {
            x[2 * p] -= mean;
            x[2 * p + 1] -= mean;
            const vec4 both = x[2 * p] * x[2 * p] + x[2 * p + 1] * x[2 * p + 1];
            squares += (p * lanes + lane) * 8 < length_ ? sum_of(both) : 0.0;
        }
        const float factor = 1.0 / sqrt(total(squares) / float(length_) + epsilon);
        [[unroll]] for (uint p = 0; p < PARTS; p++) {
            const uint at = (p * lanes + lane) * 8;
            if (at < length_) {
                const vec4 low = x[2 * p] * factor * factors[2 * p] + shifts[2 * p];
                const vec4 high = x[2 * p + 1] * factor * factors[2 * p + 1] + shifts[2 * p + 1];
                y8[(y_offset + row * length_ + at) >> 3] = u64vec4(
                    pack64(floatBitsToUint(low.xy)), pack64(floatBitsToUint(low.zw)),
                    pack64(floatBitsToUint(high.xy)), pack64(floatBitsToUint(high.zw)));
            }
        }
    }
}
