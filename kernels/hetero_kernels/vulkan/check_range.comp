// Notes the first index found that is not in [-size, size): flags[slot] = 1, the index in the two words behind it.
#version 450

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint WORDS = 1;

layout(std430, binding = 0) readonly buffer Indices { uint indices[]; };
layout(std430, binding = 1) buffer Flags { uint flags[]; };

layout(push_constant) uniform Push {
    uint count;
    uint offset;
    uint size;
    uint slot;
};

void main() {
    const uint step = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
    for (uint i = gl_GlobalInvocationID.x; i < count; i += step) {
        const uint low = indices[offset + i * WORDS];
        const uint sign = int(low) < 0 ? 0xffffffffu : 0;
        const uint high = WORDS == 2 ? indices[offset + i * WORDS + 1] : sign;
        if (high != sign || int(low) < -int(size) || int(low) >= int(size)) {
            if (atomicCompSwap(flags[slot], 0, 1) == 0) {
                flags[slot + 1] = low;
                flags[slot + 2] = high;
            }
        }
    }
}
