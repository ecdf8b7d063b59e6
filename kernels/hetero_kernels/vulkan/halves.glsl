// Two halves in a word. What is finite and beyond a half's range becomes its greatest number, not infinity; infinity and
// NaN stay.
float in_half_range(float x) {
    return abs(x) > 65504.0 && abs(x) < uintBitsToFloat(0x7f800000u) ? sign(x) * 65504.0 : x;
}

uint halves_of(float low, float high) {
    return packHalf2x16(vec2(in_half_range(low), in_half_range(high)));
}
