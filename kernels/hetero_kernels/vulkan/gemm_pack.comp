// B for gemm_subgroup: panels of WIDTH columns, each with its rows one after the other, and zeros up to a multiple of 8
// rows and to whole panels. An invocation makes a word.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "words.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint WIDTH = 64;
layout(constant_id = 2) const uint FROM = 0;
layout(constant_id = 3) const uint TO = 0;

layout(std430, binding = 0) readonly buffer Source { uint source[]; };
layout(std430, binding = 1) writeonly buffer Target { uint target[]; };

layout(push_constant) uniform Push {
    uint n;
    uint k;
    uint inner;
    uint offset;
    uint row;
    uint column;
    uint outer_stride;
    uint inner_stride;
    uint words;
    uint to_offset;
};

void main() {
    const uint rows = (k + 7) & ~7u;
    const uint from = offset + gl_WorkGroupID.z / inner * outer_stride + gl_WorkGroupID.z % inner * inner_stride;
    const uint each = per_word(TO);
    const uint step = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
    for (uint w = gl_GlobalInvocationID.x; w < words; w += step) {
        uint made = 0;
        for (uint e = 0; e < each; e++) {
            const uint index = w * each + e;
            const uint r = index / WIDTH % rows;
            const uint c = index / WIDTH / rows * WIDTH + index % WIDTH;
            if (r < k && c < n) {
                const uint at = from + r * row + c * column;
                made |= moved(FROM, TO, source[at / per_word(FROM)], at, index);
            }
        }
        target[to_offset + gl_WorkGroupID.z * words + w] = made;
    }
}
