// What the other shaders count on, for a comparison with numpy: ROWS results for each pair of numbers, and sums through
// shared memory. The last rows are of numbers that are too large, too small or infinite, where drivers differ.
#version 450

layout(local_size_x = 64) in;

layout(std430, binding = 0) readonly buffer A { float a[]; };
layout(std430, binding = 1) readonly buffer B { float b[]; };
layout(std430, binding = 2) readonly buffer Whole { int whole[]; };
layout(std430, binding = 3) writeonly buffer Results { float results[]; };
layout(std430, binding = 4) writeonly buffer Sums { int sums[]; };

layout(push_constant) uniform Push { uint count; };

shared int partial[64];

void main() {
    const uint i = gl_GlobalInvocationID.x;
    const uint lane = gl_LocalInvocationID.x;
    if (i < count) {
        const float x = a[i];
        const float y = b[i];
        results[0 * count + i] = x + y;
        results[1 * count + i] = x * y;
        results[2 * count + i] = fma(x, y, x);
        results[3 * count + i] = x / y;
        results[4 * count + i] = max(x, y);
        results[5 * count + i] = min(x, y);
        results[6 * count + i] = floor(x);
        results[7 * count + i] = exp(clamp(x, -80.0, 80.0));
        results[8 * count + i] = tanh(clamp(x, -9.0, 9.0));
        results[9 * count + i] = inversesqrt(abs(y));
        results[10 * count + i] = float(int(clamp(x, -1000.0, 1000.0)));
        results[11 * count + i] = uintBitsToFloat(floatBitsToUint(x) ^ 0x80000000u);
        results[12 * count + i] = exp(x);
        results[13 * count + i] = tanh(x);
        results[14 * count + i] = x * 1.0;
    }
    partial[lane] = i < count ? whole[i] : 0;
    barrier();
    for (uint half_size = 32; half_size > 0; half_size /= 2) {
        if (lane < half_size) {
            partial[lane] += partial[lane + half_size];
        }
        barrier();
    }
    if (lane == 0) {
        sums[gl_WorkGroupID.x] = partial[0];
    }
}
