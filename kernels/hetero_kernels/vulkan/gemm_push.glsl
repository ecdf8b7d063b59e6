// What every matrix product is told: C = activation(A B * scale + bias) + residual, for each z = outer * inner + inner's.
// Offsets and strides count elements.
#include "halves.glsl"

layout(push_constant) uniform Push {
    uint m;
    uint n;
    uint k;
    uint inner;
    uint a_offset;
    uint a_row;
    uint a_outer;
    uint a_inner;
    uint b_offset;
    uint b_row;
    uint b_outer;
    uint b_inner;
    uint c_offset;
    uint c_row;
    uint c_outer;
    uint c_inner;
    uint r_offset;
    uint r_row;
    uint r_outer;
    uint r_inner;
    uint bias_offset;
    uint scale_offset;
    float alpha;
#ifdef ADDRESSED
    uint address_0_low;
    uint address_0_high;
    uint address_1_low;
    uint address_1_high;
#endif
#ifdef STRIDED
    uint a_column;
    uint b_column;
#endif
};

layout(constant_id = 2) const uint A_TYPE = 0;
layout(constant_id = 3) const uint B_TYPE = 0;
layout(constant_id = 4) const uint C_TYPE = 0;
layout(constant_id = 5) const uint ACTIVATION = 0;
layout(constant_id = 6) const bool BIAS = false;
layout(constant_id = 7) const bool SCALE = false;
layout(constant_id = 8) const bool RESIDUAL = false;

#define F32 0
#define F16 1
#define I8 2

layout(std430, binding = 2) readonly buffer Bias { float bias[]; };
layout(std430, binding = 3) readonly buffer Scale { float scales[]; };
layout(std430, binding = 4) readonly buffer Residual1 { float residual1[]; };
layout(std430, binding = 4) readonly buffer ResidualW { uint residual_words[]; };
layout(std430, binding = 5) buffer C1 { float c1[]; };
layout(std430, binding = 5) buffer CW { uint c_words[]; };

float residual_at(uint index) {
    if (C_TYPE == F16) {
        const vec2 both = unpackHalf2x16(residual_words[index >> 1]);
        return (index & 1) == 0 ? both.x : both.y;
    }
    return residual1[index];
}

// What is given to the activation: a sum in column `column`, scaled, with its bias.
float biased(float sum, uint column) {
    float value = sum * alpha;
    if (SCALE) {
        value *= scales[scale_offset + column];
    }
    if (BIAS) {
        value += bias[bias_offset + column];
    }
    return value;
}

// What becomes of it; `r` is where its row of the residual begins.
float activated_at(float value, uint column, uint r) {
    value = activated(ACTIVATION, value);
    if (RESIDUAL) {
        value += residual_at(r + column);
    }
    return value;
}
