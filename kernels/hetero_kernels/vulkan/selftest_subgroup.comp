// The operations on subgroups that other shaders count on: for each workgroup a sum by addition within subgroups, a sum
// of what neighbours in a ring handed over, and the size of a subgroup.
#version 450
#extension GL_KHR_shader_subgroup_arithmetic : require
#extension GL_KHR_shader_subgroup_shuffle : require

layout(local_size_x_id = 0) in;

layout(std430, binding = 0) readonly buffer Whole { int whole[]; };
layout(std430, binding = 1) writeonly buffer Sums { ivec4 sums[]; };

shared int added;
shared int shuffled;
shared int fixed_points;

void main() {
    if (gl_LocalInvocationIndex == 0) {
        added = 0;
        shuffled = 0;
        fixed_points = 0;
    }
    barrier();
    const int value = whole[gl_GlobalInvocationID.x];
    const int within = subgroupAdd(value);
    const int handed = subgroupShuffle(value, (gl_SubgroupInvocationID + 1) % gl_SubgroupSize);
    const uint from = subgroupShuffle(gl_SubgroupInvocationID, (gl_SubgroupInvocationID + 1) % gl_SubgroupSize);
    if (subgroupElect()) {
        atomicAdd(added, within);
    }
    atomicAdd(shuffled, handed);
    if (from != (gl_SubgroupInvocationID + 1) % gl_SubgroupSize) {
        atomicAdd(fixed_points, 1);
    }
    barrier();
    if (gl_LocalInvocationIndex == 0) {
        sums[gl_WorkGroupID.x] = ivec4(added, shuffled, fixed_points, gl_SubgroupSize);
    }
}
