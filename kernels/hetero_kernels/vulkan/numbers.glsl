// Functions that are numpy's for every float, also where a driver's are not: infinity, NaN, the ends of the range.
#define INFINITE uintBitsToFloat(0x7f800000u)
#define NOT_A_NUMBER uintBitsToFloat(0x7fc00000u)

float exp_of(float x) {
    return x != x ? x : x < -103.97 ? 0.0 : x > 88.722839 ? INFINITE : exp(x);
}

// log(1 + f) of f from -0.29 to 0.41, as exact in small f as in others, which Vulkan does not ask of drivers.
// The polynomial is that of S. L. Moshier's Cephes library, logf.
float log_beside_one(float f) {
    const float p = 3.3333331174e-1 + f * (-2.4999993993e-1 + f * (2.0000714765e-1 + f * (-1.6668057665e-1
            + f * (1.4249322787e-1 + f * (-1.2420140846e-1 + f * (1.1676998740e-1
            + f * (-1.1514610310e-1 + f * 7.0376836292e-2)))))));
    return f + f * f * (f * p - 0.5);
}

float log_of(float x) {
    if (x > 0.71 && x < 1.41) {
        return log_beside_one(x - 1.0);
    }
    return x != x || x < 0.0 ? NOT_A_NUMBER : x == 0.0 ? -INFINITE : x == INFINITE ? x : log(x);
}

float sqrt_of(float x) {
    return x != x || x < 0.0 ? NOT_A_NUMBER : x == 0.0 || x == INFINITE ? x : sqrt(x);
}

float least_of(float x, float y) {
    return x != x ? x : y != y ? y : min(x, y);
}

float greatest_of(float x, float y) {
    return x != x ? x : y != y ? y : max(x, y);
}

// Whole powers up to 64 by multiplication: GLSL's knows no x below 0, and is less exact.
float power_of(float x, float y) {
    if (y == 0.0 || x == 1.0) {
        return 1.0;
    }
    if (x != x || y != y) {
        return NOT_A_NUMBER;
    }
    const float whole = floor(abs(y));
    if (whole == abs(y) && whole <= 64.0) {
        float result = 1.0;
        float factor = x;
        for (uint left = uint(whole); left > 0; left >>= 1) {
            if ((left & 1) == 1) {
                result *= factor;
            }
            factor *= factor;
        }
        return y < 0.0 ? 1.0 / result : result;
    }
    if (y == 0.5 && x >= 0.0) {
        return sqrt_of(x);
    }
    const float size = abs(x);
    const float scaled = size == 0.0 ? -INFINITE : size == INFINITE ? INFINITE : log2(size);
    const float exponent = scaled == 0.0 ? 0.0 : scaled * y;
    const float result = exponent >= 128.0 ? INFINITE : exponent < -149.0 ? 0.0 : exp2(exponent);
    if (x >= 0.0) {
        return result;
    }
    // Above 2^24 every float is even; infinity counts as even.
    const bool odd = whole == abs(y) && whole < 16777216.0 && mod(whole, 2.0) == 1.0;
    return whole != abs(y) && size != INFINITE ? NOT_A_NUMBER : odd ? -result : result;
}
