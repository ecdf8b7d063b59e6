// target[i] = start + i * step, of floats or of integers.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "words.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint TO = 0;

layout(std430, binding = 0) writeonly buffer Target { uint target[]; };

layout(push_constant) uniform Push {
    uint count;
    uint to_offset;
    float start;
    float step_size;
    int whole_start;
    int whole_step;
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
                made |= TO == I32 ? uint(whole_start + int(index) * whole_step)
                                  : to_word(TO, start + float(index) * step_size, index);
            }
        }
        target[to_offset / each + w] = made;
    }
}
