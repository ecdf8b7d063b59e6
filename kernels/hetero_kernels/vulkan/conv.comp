// Convolution in two dimensions, straight from the input: groups, strides, dilation and padding of any size. An invocation
// makes CHANNELS output channels of POINTS neighbouring points, so that what it reads of the input serves for several.
#version 450
#extension GL_EXT_control_flow_attributes : require
#extension GL_GOOGLE_include_directive : require
#include "words.glsl"
#include "activations.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint CHANNELS = 4;
layout(constant_id = 2) const uint POINTS = 1;
layout(constant_id = 3) const uint FROM = 0;
layout(constant_id = 4) const uint WEIGHTS = 0;
layout(constant_id = 5) const uint TO = 0;
layout(constant_id = 6) const uint ACTIVATION = 0;
layout(constant_id = 7) const bool BIAS = false;

layout(std430, binding = 0) readonly buffer X { uint x_words[]; };
layout(std430, binding = 1) readonly buffer W { uint w_words[]; };
layout(std430, binding = 2) readonly buffer Bias { float bias[]; };
layout(std430, binding = 3) writeonly buffer Y { uint y_words[]; };

layout(push_constant) uniform Push {
    uint count;
    uint in_channels;
    uint in_height;
    uint in_width;
    uint out_channels;
    uint out_height;
    uint out_width;
    uint group_in;
    uint group_out;
    uint kernel_y;
    uint kernel_x;
    uint stride_y;
    uint stride_x;
    uint dilation_y;
    uint dilation_x;
    int top;
    int left;
    uint x_offset;
    uint w_offset;
    uint bias_offset;
    uint y_offset;
};

void main() {
    const uint points = out_height * out_width;
    const uint blocks = (points + POINTS - 1) / POINTS;
    const uint sets = (group_out + CHANNELS - 1) / CHANNELS;
    const uint groups = out_channels / group_out;
    const uint step = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
    for (uint index = gl_GlobalInvocationID.x; index < count; index += step) {
        const uint point = index % blocks * POINTS;
        const uint set_ = index / blocks % sets;
        const uint group = index / blocks / sets % groups;
        const uint item = index / blocks / sets / groups;
        const uint channel = group * group_out + set_ * CHANNELS;
        const uint within = min(CHANNELS, group_out - set_ * CHANNELS);
        float sums[POINTS][CHANNELS];
        [[unroll]] for (uint p = 0; p < POINTS; p++) {
            [[unroll]] for (uint c = 0; c < CHANNELS; c++) {
                sums[p][c] = 0.0;
            }
        }
        for (uint i = 0; i < group_in; i++) {
            const uint plane = x_offset + (item * in_channels + group * group_in + i) * in_height * in_width;
            for (uint ky = 0; ky < kernel_y; ky++) {
                for (uint kx = 0; kx < kernel_x; kx++) {
                    float weights[CHANNELS];
                    [[unroll]] for (uint c = 0; c < CHANNELS; c++) {
                        const uint at = w_offset
                            + (((channel + min(c, within - 1)) * group_in + i) * kernel_y + ky) * kernel_x + kx;
                        weights[c] = from_word(WEIGHTS, w_words[at / per_word(WEIGHTS)], at);
                    }
                    [[unroll]] for (uint p = 0; p < POINTS; p++) {
                        const uint here = min(point + p, points - 1);
                        const int y = int(here / out_width * stride_y + ky * dilation_y) - top;
                        const int x = int(here % out_width * stride_x + kx * dilation_x) - left;
                        if (y >= 0 && y < int(in_height) && x >= 0 && x < int(in_width)) {
                            const uint at = plane + uint(y) * in_width + uint(x);
                            const float value = from_word(FROM, x_words[at / per_word(FROM)], at);
                            [[unroll]] for (uint c = 0; c < CHANNELS; c++) {
                                sums[p][c] = fma(value, weights[c], sums[p][c]);
                            }
                        }
                    }
                }
            }
        }
        [[unroll]] for (uint c = 0; c < CHANNELS; c++) {
            if (c < within) {
                const uint to = y_offset + (item * out_channels + channel + c) * points + point;
                uint made = 0;
                [[unroll]] for (uint p = 0; p < POINTS; p++) {
                    const float sum = sums[p][c] + (BIAS ? bias[bias_offset + channel + c] : 0.0);
                    made |= to_word(TO, activated(ACTIVATION, sum), to + p);
                }
                y_words[to / POINTS] = made;
            }
        }
    }
}
