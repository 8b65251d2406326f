// The colour of one camera pixel, for every encoding that the GPU reads by itself. Bit for bit what core/encodings/raw.py
// makes of it with OpenCV.
//
// Bytes are read one by one, because neither the frame's offset nor its step need be aligned, and because nothing after
// the last pixel may be read: its row's padding may be absent.

#pragma once

#include "records.cuh"

namespace decode {

struct Colour {
    int red, green, blue;
};

struct Image {
    const unsigned char* pixels;
    int width, height, step;

    __device__ const unsigned char* row(int y) const { return pixels + static_cast<unsigned long long>(y) * step; }
};

__device__ inline int clamped(int value, int low, int high) { return min(max(value, low), high); }

// bgr8, rgb8, bgra8, rgba8 and mono8: the byte of each colour within a pixel.
template <int Channels>
struct Interleaved {
    int red, green, blue;

    __device__ Colour at(const Image& image, int x, int y) const {
        const unsigned char* pixel = image.row(y) + x * Channels;
        return {pixel[red], pixel[green], pixel[blue]};
    }
};

// BT.601 with video range in OpenCV's fixed point: factors times 2^20, rounded.
__device__ inline Colour from_yuv(int luma, int u, int v) {
    constexpr int bits = 20, half = 1 << (bits - 1);
    const int grey = max(luma - 16, 0) * 1220542 + half;
    u -= 128;
    v -= 128;
    return {
        clamped((grey + 1673527 * v) >> bits, 0, 255),
        clamped((grey - 852492 * v - 409993 * u) >> bits, 0, 255),
        clamped((grey + 2116026 * u) >> bits, 0, 255),
    };
}

// Two pixels in four bytes, with one chroma: where in them the first luma, U and V are.
struct Packed422 {
    int luma, u, v;

    __device__ Colour at(const Image& image, int x, int y) const {
        const unsigned char* pair = image.row(y) + 2 * (x & ~1);
        return from_yuv(pair[luma + 2 * (x & 1)], pair[u], pair[v]);
    }
};

// A plane of luma, followed by one of chroma with half the rows and the same step: where in its pairs U and V are.
struct SemiPlanar {
    int u, v;

    __device__ Colour at(const Image& image, int x, int y) const {
        const unsigned char* chroma = image.row(image.height + y / 2) + (x & ~1);
        return from_yuv(image.row(y)[x], chroma[u], chroma[v]);
    }
};

__device__ inline int mirrored(int value, int length) {
    value = abs(value);
    return value < length ? value : 2 * (length - 1) - value;
}

// A mosaic with red where x has parity red_x and y has red_y. A pixel at the border gets the colour of its neighbour
// inside, as OpenCV does it; an image of two rows or columns has none inside, there the mosaic goes on as its mirror
// image, as core/encodings/raw.py does it.
struct Bayer {
    int red_x, red_y;

    __device__ Colour at(const Image& image, int x, int y) const {
        int left, right, up, down;
        if (min(image.width, image.height) > 2) {
            x = clamped(x, 1, image.width - 2);
            y = clamped(y, 1, image.height - 2);
            left = x - 1, right = x + 1, up = y - 1, down = y + 1;
        } else {
            left = mirrored(x - 1, image.width), right = mirrored(x + 1, image.width);
            up = mirrored(y - 1, image.height), down = mirrored(y + 1, image.height);
        }
        const unsigned char *above = image.row(up), *row = image.row(y), *below = image.row(down);
        const int centre = row[x], vertical = above[x] + below[x], horizontal = row[left] + row[right];
        const bool red_row = (y & 1) == red_y;
        if (((x & 1) == red_x) != red_row) {  // at green
            const int beside = (horizontal + 1) >> 1, over = (vertical + 1) >> 1;
            return red_row ? Colour{beside, centre, over} : Colour{over, centre, beside};
        }
        const int green = (horizontal + vertical + 2) >> 2;
        const int opposite = (above[left] + above[right] + below[left] + below[right] + 2) >> 2;
        return red_row ? Colour{centre, green, opposite} : Colour{opposite, green, centre};
    }
};

}  // namespace decode
