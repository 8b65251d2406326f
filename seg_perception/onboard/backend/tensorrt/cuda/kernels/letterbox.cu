// Camera images to network inputs in one pass: decode, resize bilinearly, reorder to RGB, pad; one camera per blockIdx.z.
//
// The arithmetic is OpenCV's for 8-bit images, so that the result is that of backend/host/letterbox.py: weights of 11 bits,
// first along rows, then along columns, with the truncations in between. (At half the size both ways OpenCV takes the
// mean of 2 x 2 pixels; with weights of one half, that is the same number.)
//
// Counted, not measured, for each pixel inside the content:
//   bytes read          12 (bgr, rgb, bgra, rgba, YUV), 4 (mono), 20 to 36 (Bayer). Neighbours share them in the cache:
//                       DRAM sees at most the frame once, 3 (bgr), 2 (422), 1.5 (nv12) or 1 byte for a camera pixel.
//   bytes written       3.
//   integer operations  about 60: 45 of resizing (for each colour 6 multiplications, 4 additions, 5 shifts) and 15 of
//                       addresses; besides, for each of the 4 source pixels, about 25 (YUV) or 35 (Bayer).
//   float operations    none: 5 for each row and column of a block.
// In the padding 3 bytes are written and nothing is read.
//
// From 1920 x 1080 to 640 x 360 that makes, for bgr8, 6.9 MB and 14 million operations, 2 a byte: bound by memory. For
// nv12 it is 3.8 MB and 37 million, 10 a byte, for Bayer 2.8 MB and 46 million, 17 a byte: bound by integer arithmetic
// where a GPU has fewer operations than that for each byte of its bandwidth.

#include "decode.cuh"

namespace resize {

constexpr int LANES = 32;   // threads of a block in x, one warp per row
constexpr int ROWS = 8;     // threads of a block in y
constexpr int PIXELS = 4;   // network pixels of a thread, LANES apart, so that the lanes of a warp read side by side
constexpr int WIDTH = LANES * PIXELS;
constexpr int ONE = 2048;   // the weight 1

// The two source rows or columns of a network row or column, and the weight of the second.
struct Tap {
    int first, second, weight;
};

// index: of the content's row or column, of `content`; length: rows or columns of the source.
__device__ inline Tap tap(int index, int content, int length) {
    // Position (index + 1/2) * length / content - 1/2, exact as low + rest / whole.
    const int whole = 2 * content;
    const int low = ((2 * index + 1) * length - content + whole) / whole - 1;
    const int rest = (2 * index + 1) * length - content - low * whole;
    // OpenCV rounds the position to a float before it takes the fraction.
    const float position = static_cast<float>(low) + static_cast<float>(rest) / static_cast<float>(whole);
    const float fraction = position - static_cast<float>(low);
    return {
        decode::clamped(low, 0, length - 1),
        decode::clamped(low + 1, 0, length - 1),
        static_cast<int>(rintf(fraction * ONE)),
    };
}

__device__ inline int blended(int a, int b, int c, int d, const Tap& column, const Tap& row) {
    const int upper = a * (ONE - column.weight) + b * column.weight;
    const int lower = c * (ONE - column.weight) + d * column.weight;
    return ((((ONE - row.weight) * (upper >> 4)) >> 16) + ((row.weight * (lower >> 4)) >> 16) + 2) >> 2;
}

template <typename Encoding>
__device__ decode::Colour sampled(const Encoding& encoding, const decode::Image& image, const Tap& column,
                                  const Tap& row) {
    const decode::Colour a = encoding.at(image, column.first, row.first);
    const decode::Colour b = encoding.at(image, column.second, row.first);
    const decode::Colour c = encoding.at(image, column.first, row.second);
    const decode::Colour d = encoding.at(image, column.second, row.second);
    return {
        blended(a.red, b.red, c.red, d.red, column, row),
        blended(a.green, b.green, c.green, d.green, column, row),
        blended(a.blue, b.blue, c.blue, d.blue, column, row),
    };
}

// One row of a block: WIDTH pixels from network column `begin` on. `row` is null outside the content.
template <typename Encoding>
__device__ void fill(const Encoding& encoding, const Camera& camera, const unsigned char* pixels, int begin,
                     const Tap* columns, const Tap* row, unsigned char* line) {
    const decode::Image image{pixels, camera.width, camera.height, camera.step};
#pragma unroll
    for (int i = 0; i < PIXELS; ++i) {
        const int column = static_cast<int>(threadIdx.x) + i * LANES;
        const int x = begin + column - camera.left;
        decode::Colour colour{camera.pad_value, camera.pad_value, camera.pad_value};
        if (row && x >= 0 && x < camera.content_width) colour = sampled(encoding, image, columns[column], *row);
        line[3 * column] = static_cast<unsigned char>(colour.red);
        line[3 * column + 1] = static_cast<unsigned char>(colour.green);
        line[3 * column + 2] = static_cast<unsigned char>(colour.blue);
    }
}

__device__ inline void fill_decoded(const Camera& camera, const unsigned char* pixels, int begin, const Tap* columns,
                                    const Tap* row, unsigned char* line) {
    using namespace decode;
    const int code = camera.encoding;
    switch (code) {
        case BGR:
        case RGB: {
            const int red = code == RGB ? 0 : 2;
            return fill(Interleaved<3>{red, 1, 2 - red}, camera, pixels, begin, columns, row, line);
        }
        case BGRA:
        case RGBA: {
            const int red = code == RGBA ? 0 : 2;
            return fill(Interleaved<4>{red, 1, 2 - red}, camera, pixels, begin, columns, row, line);
        }
        case MONO: return fill(Interleaved<1>{0, 0, 0}, camera, pixels, begin, columns, row, line);
        case UYVY:
        case YUYV: {
            const int luma = code == UYVY;
            return fill(Packed422{luma, 1 - luma, 3 - luma}, camera, pixels, begin, columns, row, line);
        }
        case NV12:
        case NV21: {
            const int u = code == NV21;
            return fill(SemiPlanar{u, 1 - u}, camera, pixels, begin, columns, row, line);
        }
        default: {
            const int red_x = code == BAYER_BGGR || code == BAYER_GRBG, red_y = code == BAYER_BGGR || code == BAYER_GBRG;
            return fill(Bayer{red_x, red_y}, camera, pixels, begin, columns, row, line);
        }
    }
}

// Copies a finished line, four bytes at once where the target allows.
__device__ inline void copy_line(const unsigned* words, unsigned char* target, int bytes) {
    const unsigned char* source = reinterpret_cast<const unsigned char*>(words);
    const bool aligned = reinterpret_cast<unsigned long long>(target) % 4 == 0;
    const int whole = aligned ? bytes / 4 : 0;
    for (int i = threadIdx.x; i < whole; i += LANES) reinterpret_cast<unsigned*>(target)[i] = words[i];
    for (int i = 4 * whole + threadIdx.x; i < bytes; i += LANES) target[i] = source[i];
}

}  // namespace resize

// images: uint8 [gridDim.z, network_height, network_width, 3], RGB; blocks of 32 x 8 threads, each for 128 x 8 pixels.
extern "C" __global__ void __launch_bounds__(resize::LANES * resize::ROWS)
    letterbox(const unsigned char* frames, const Camera* cameras, unsigned char* images, int network_width,
              int network_height) {
    using namespace resize;
    __shared__ Tap columns[WIDTH];
    __shared__ Tap rows[ROWS];
    __shared__ unsigned lines[ROWS][WIDTH * 3 / 4];

    const Camera& camera = cameras[blockIdx.z];
    const int begin = blockIdx.x * WIDTH, top = blockIdx.y * ROWS;
    const int thread = threadIdx.y * LANES + threadIdx.x;
    if (thread < WIDTH) {
        const int x = begin + thread - camera.left;
        if (x >= 0 && x < camera.content_width) columns[thread] = tap(x, camera.content_width, camera.width);
    } else if (thread < WIDTH + ROWS) {
        const int y = top + thread - WIDTH - camera.top;
        if (y >= 0 && y < camera.content_height) rows[thread - WIDTH] = tap(y, camera.content_height, camera.height);
    }
    __syncthreads();

    const int y = top + static_cast<int>(threadIdx.y);
    const bool content = y >= camera.top && y < camera.top + camera.content_height;
    fill_decoded(camera, frames + camera.pixels, begin, columns, content ? &rows[threadIdx.y] : nullptr,
                 reinterpret_cast<unsigned char*>(lines[threadIdx.y]));
    __syncthreads();

    if (y >= network_height) return;
    const unsigned long long line = static_cast<unsigned long long>(blockIdx.z) * network_height + y;
    copy_line(lines[threadIdx.y], images + (line * network_width + begin) * 3, min(WIDTH, network_width - begin) * 3);
}
