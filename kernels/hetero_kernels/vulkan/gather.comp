// target[o, i, r] = source[o, indices[i], r]; an index below 0 counts from the end, and one that is beyond is the last.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "words.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint FROM = 0;
layout(constant_id = 2) const uint TO = 0;

layout(std430, binding = 0) readonly buffer Source { uint source[]; };
layout(std430, binding = 1) readonly buffer Indices { int indices[]; };
layout(std430, binding = 2) writeonly buffer Target { uint target[]; };

layout(push_constant) uniform Push {
    uint count;
    uint size;
    uint chosen;
    uint rest;
    uint from_offset;
    uint index_offset;
    uint to_offset;
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
                const int asked = indices[index_offset + index / rest % chosen];
                const int row = clamp(asked < 0 ? asked + int(size) : asked, 0, int(size) - 1);
                const uint from = from_offset + (index / rest / chosen * size + uint(row)) * rest + index % rest;
                made |= moved(FROM, TO, source[from / per_word(FROM)], from, index);
            }
        }
        target[to_offset / each + w] = made;
    }
}
