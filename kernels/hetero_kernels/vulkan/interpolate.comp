// Along an axis: y[o, i, r] = the sum over t of x[o, places[i, t], r] * weights[i, t]. An invocation makes a word of y.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "words.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint FROM = 0;
layout(constant_id = 2) const uint TO = 0;

layout(std430, binding = 0) readonly buffer X { uint x_words[]; };
layout(std430, binding = 1) readonly buffer Places { int places[]; };
layout(std430, binding = 2) readonly buffer Weights { float weights[]; };
layout(std430, binding = 3) writeonly buffer Y { uint y_words[]; };

layout(push_constant) uniform Push {
    uint count;
    uint size;
    uint wanted;
    uint taps;
    uint inner;
    uint x_offset;
    uint places_offset;
    uint weights_offset;
    uint y_offset;
};

void main() {
    const uint each = per_word(TO);
    const uint words = (count + each - 1) / each;
    const uint step = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
    for (uint w = gl_GlobalInvocationID.x; w < words; w += step) {
        uint made = 0;
        for (uint e = 0; e < each; e++) {
            const uint index = w * each + e;
            if (index < count) {
                const uint line = index / inner;
                const uint from = x_offset + line / wanted * size * inner + index % inner;
                const uint tap = line % wanted * taps;
                float sum = 0.0;
                for (uint t = 0; t < taps; t++) {
                    const uint at = from + uint(places[places_offset + tap + t]) * inner;
                    sum = fma(from_word(FROM, x_words[at / per_word(FROM)], at), weights[weights_offset + tap + t], sum);
                }
                made |= to_word(TO, sum, index);
            }
        }
        y_words[y_offset / each + w] = made;
    }
}
