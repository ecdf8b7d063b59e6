// Elements of several types in buffers of 32-bit words, so that a device needs no feature for 8 or 16 bits.
#include "halves.glsl"

#define F32 0
#define F16 1
#define I8 2
#define I32 3

uint per_word(uint type) {
    return type == I8 ? 4 : type == F16 ? 2 : 1;
}

// The element `index` of the word that it is in, as a float; integers above 2^24 are rounded.
float from_word(uint type, uint word, uint index) {
    if (type == F16) {
        const vec2 both = unpackHalf2x16(word);
        return (index & 1) == 0 ? both.x : both.y;
    }
    if (type == I8) {
        return float(int(word << (24 - 8 * (index & 3))) >> 24);
    }
    if (type == I32) {
        return float(int(word));
    }
    return uintBitsToFloat(word);
}

int to_int(float value) {
    return value != value ? 0 : value >= 2147483648.0 ? 2147483647 : value <= -2147483648.0 ? -2147483647 - 1 : int(value);
}

// A word of which `value` is the element `index`; the rest is 0.
uint to_word(uint type, float value, uint index) {
    if (type == F16) {
        return (halves_of(value, 0.0) & 0xffffu) << (16 * (index & 1));
    }
    if (type == I8) {
        return (uint(to_int(value)) & 0xffu) << (8 * (index & 3));
    }
    if (type == I32) {
        return uint(to_int(value));
    }
    return floatBitsToUint(value);
}

// As `to_word` of `from_word`, with every bit of a value that keeps its type.
uint moved(uint from, uint to, uint word, uint index, uint target) {
    if (from == to) {
        const uint bits = from == F16 ? 16 : from == I8 ? 8 : 32;
        if (bits == 32) {
            return word;
        }
        const uint count = per_word(from);
        return bitfieldExtract(word, int(bits * (index % count)), int(bits)) << (bits * (target % count));
    }
    return to_word(to, from_word(from, word, index), target);
}
