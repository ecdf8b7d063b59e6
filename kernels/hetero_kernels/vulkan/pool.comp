// The greatest or the mean of a window, in two dimensions. An invocation makes a word of y.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "words.glsl"
#include "numbers.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const bool MEAN = false;
layout(constant_id = 2) const bool COUNT_PADDING = false;
layout(constant_id = 3) const uint FROM = 0;
layout(constant_id = 4) const uint TO = 0;

layout(std430, binding = 0) readonly buffer X { uint x_words[]; };
layout(std430, binding = 1) writeonly buffer Y { uint y_words[]; };

layout(push_constant) uniform Push {
    uint count;
    uint in_height;
    uint in_width;
    uint out_height;
    uint out_width;
    uint kernel_y;
    uint kernel_x;
    uint stride_y;
    uint stride_x;
    uint dilation_y;
    uint dilation_x;
    int top;
    int left;
    int bottom;
    int right;
    uint x_offset;
    uint y_offset;
};

float window(uint index) {
    const uint column = index % out_width;
    const uint row = index / out_width % out_height;
    const uint plane = x_offset + index / out_width / out_height * in_height * in_width;
    float result = MEAN ? 0.0 : -INFINITE;
    uint counted = 0;
    for (uint ky = 0; ky < kernel_y; ky++) {
        const int y = int(row * stride_y + ky * dilation_y) - top;
        for (uint kx = 0; kx < kernel_x; kx++) {
            const int x = int(column * stride_x + kx * dilation_x) - left;
            if (y >= 0 && y < int(in_height) && x >= 0 && x < int(in_width)) {
                const uint at = plane + uint(y) * in_width + uint(x);
                const float value = from_word(FROM, x_words[at / per_word(FROM)], at);
                result = MEAN ? result + value : greatest_of(result, value);
                counted++;
            } else if (COUNT_PADDING && y < int(in_height) + bottom && x < int(in_width) + right) {
                counted++;
            }
        }
    }
    return MEAN ? result / float(counted) : result;
}

void main() {
    const uint each = per_word(TO);
    const uint words = (count + each - 1) / each;
    const uint step = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
    for (uint w = gl_GlobalInvocationID.x; w < words; w += step) {
        uint made = 0;
        for (uint e = 0; e < each; e++) {
            if (w * each + e < count) {
                made |= to_word(TO, window(w * each + e), e);
            }
        }
        y_words[y_offset / each + w] = made;
    }
}
