// Mask logits to one number per pixel, on the tiles of the map: backend/host/paint.py on the GPU.
//
// A block takes a tile, lists the instances whose boxes touch it, best first, and walks along the list until all pixels
// are taken. A thread has two columns of eight pixels; along a column it keeps the two grid rows, already resampled to
// the column, between which the pixels lie. The arithmetic is that of the CPU: with `frame` masks the map is the same
// bit for bit, with `box` masks positions are float32 and agree to about 1e-5 of a cell.
//
// Counted, for a map of P pixels of which each lies in n boxes before it is taken, on a grid that is s times coarser:
//   bytes       2 P written (3 P with the semantic map), once and in whole lines. Read: the masks under the boxes,
//               4 or 2 bytes per cell, that is about 4 n P / s^2, through the caches; boxes and numbers, 22 bytes a
//               row, by each tile. 1920 x 1080, half of it with n = 2, s = 12: 4.1 MB written, 0.06 MB read.
//   operations  per free pixel of a tile and box about 16 (range, interpolation, comparison, choice), and for each grid
//               row that a thread's columns come to about 30 (4 loads, their addresses, 2 interpolations); per pixel of
//               the map about 4 to write it. Float64 only in tiles that instances touch: about 15 for each of 96
//               columns and rows of 2048 pixels, and four divisions.
// At n = 1 that is about 12 operations a byte: bound by memory where the tiles fill the GPU, else by latency.

#include "half.cuh"
#include "records.cuh"
#include "samples.cuh"

namespace painting {

constexpr unsigned ALL = 0xffffffffu;
constexpr int BLOCKS = 6;  // on a multiprocessor at least: 80 registers, enough to spill none
constexpr int WARPS = TILE_THREADS / 32;
constexpr int LINES = TILE_HEIGHT / WARPS;  // pixels of a thread, one below the other
constexpr int COLUMNS = TILE_WIDTH / 32;    // and side by side
static_assert(COLUMNS == 2 && LINES * COLUMNS <= 32, "a pixel is a bit, two are stored at once");
constexpr unsigned LEFT_COLUMN = 0x55555555u, RIGHT_COLUMN = 0xaaaaaaaau;
constexpr int MAX_SEMANTIC_CLASSES = 255;  // instances.py
constexpr float LARGEST = 3.402823466e38f;

// What one camera's tiles are painted from, and where.
template <typename T>
struct Task {
    const T *masks;
    const float *boxes;
    const unsigned short *numbers;
    const int *labels;
    const unsigned char *class_map;  // or null
    int rows, grid_height, grid_width, network_width, network_height;
    bool box_masks;
    unsigned short *map;
    unsigned char *semantic;  // or null
    int *areas;
    unsigned *faults;
};

// An instance that touches the tile.
struct alignas(16) Listed {
    float x1, y1, x2, y2;
    float cells_x, cells_y;  // of a mask that spans the box: cells per network pixel
    int row;
    unsigned value;  // its number, and its value in the semantic map from bit 16 on
};

struct Shared {
    Samples samples;
    Listed listed[TILE_THREADS];
    int areas[TILE_THREADS];
    int found[WARPS];
};

// The network pixels in which a tile's centres lie, with room for what float32 rounds off.
struct Bounds {
    float x1, y1, x2, y2;
};

__device__ inline float network_position(int pixel, int content, int length, int padding) {
    return (static_cast<float>(pixel) + 0.5f) * (static_cast<float>(content) / static_cast<float>(length)) +
           static_cast<float>(padding);
}

__device__ inline Bounds bounds_of(Tile tile, const Camera &camera) {
    const float room = 1.0f / 64.0f;
    const int right = min(tile.left + TILE_WIDTH, camera.map_width) - 1;
    const int bottom = min(tile.top + TILE_HEIGHT, camera.map_height) - 1;
    return {
        network_position(tile.left, camera.content_width, camera.map_width, camera.left) - room,
        network_position(tile.top, camera.content_height, camera.map_height, camera.top) - room,
        network_position(right, camera.content_width, camera.map_width, camera.left) + room,
        network_position(bottom, camera.content_height, camera.map_height, camera.top) + room,
    };
}

// List those of the next TILE_THREADS rows that touch the tile, in their order; returns how many. All threads together.
template <typename T>
__device__ inline int list_rows(const Task<T> &task, const Bounds &bounds, int first, Shared &shared) {
    const int row = first + threadIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned number = row < task.rows ? task.numbers[row] : 0;
    Listed mine = {};
    bool touches = false;
    if (number) {
        const float *box = task.boxes + 4ll * row;
        mine.x1 = box[0], mine.y1 = box[1], mine.x2 = box[2], mine.y2 = box[3];
        // Comparisons with NaN are false, so that such a box touches nothing.
        touches = mine.x1 < mine.x2 && mine.y1 < mine.y2 && mine.x1 <= bounds.x2 && mine.x2 >= bounds.x1 &&
                  mine.y1 <= bounds.y2 && mine.y2 >= bounds.y1;
    }
    const unsigned touching = __ballot_sync(ALL, touches);
    if (lane == 0) shared.found[warp] = __popc(touching);
    __syncthreads();
    int place = __popc(touching & ((1u << lane) - 1)), total = 0;
    for (int other = 0; other < WARPS; ++other) {
        if (other < warp) place += shared.found[other];
        total += shared.found[other];
    }
    if (touches) {
        mine.cells_x = static_cast<float>(task.grid_width) / (mine.x2 - mine.x1);
        mine.cells_y = static_cast<float>(task.grid_height) / (mine.y2 - mine.y1);
        mine.row = row;
        mine.value = number;
        if (task.semantic) {
            const unsigned label = task.labels[row];
            mine.value |= (label < MAX_SEMANTIC_CLASSES ? label + 1 : 0) << 16;
        }
        shared.listed[place] = mine;
        shared.areas[place] = 0;
    }
    __syncthreads();
    return total;
}

// Where a column or row falls on a mask.
struct Position {
    int low;
    float weight;
};

template <bool BOX>
__device__ inline Position position_on(const Sample &sample, float start, float cells, int size) {
    if (!BOX) return {sample.low, sample.weight};
    const float position = ((sample.centre - start) + sample.rest) * cells - 0.5f;
    // Of a number and NaN, max takes the number.
    const float clamped = min(max(position, 0.0f), static_cast<float>(size - 1));
    const int low = static_cast<int>(clamped);
    return {low, clamped - static_cast<float>(low)};
}

// A grid row resampled to two columns.
struct Pair {
    float left, right;
};

template <typename T>
__device__ inline float stretched(const T *line, Position column, int size) {
    const float left = as_float(line[column.low]), right = as_float(line[min(column.low + 1, size - 1)]);
    return left + column.weight * (right - left);
}

__device__ inline bool finite(float value) { return fabsf(value) <= LARGEST; }

// Which of the thread's free pixels belong to an instance: bit line * 2 + column.
template <bool BOX, typename T>
__device__ inline unsigned covered(
    const Task<T> &task, const Sample *across, const Sample *down, const Listed &box, unsigned free, bool &faulty) {
    if (!(across[0].centre >= box.x1 && across[0].centre < box.x2)) free &= ~LEFT_COLUMN;
    if (!(across[1].centre >= box.x1 && across[1].centre < box.x2)) free &= ~RIGHT_COLUMN;
    if (!free) return 0;
    const int width = task.grid_width, height = task.grid_height;
    const Position left = position_on<BOX>(across[0], box.x1, box.cells_x, width);
    const Position right = position_on<BOX>(across[1], box.x1, box.cells_x, width);
    const T *mask = task.masks + static_cast<long long>(box.row) * height * width;
    unsigned result = 0;
    int upper_row = -2;
    Pair upper = {0, 0}, lower = {0, 0};
    for (int line = 0; line < LINES; ++line) {
        const unsigned pixels = free >> 2 * line & 3;
        const Sample sample = down[line];
        if (!pixels || !(sample.centre >= box.y1 && sample.centre < box.y2)) continue;
        const Position row = position_on<BOX>(sample, box.y1, box.cells_y, height);
        if (row.low != upper_row) {
            const T *line_above = mask + row.low * width, *line_below = mask + min(row.low + 1, height - 1) * width;
            // Columns outside the box may read what nobody looks at; the positions are within the grid all the same.
            if (row.low == upper_row + 1)
                upper = lower;
            else
                upper = {stretched(line_above, left, width), stretched(line_above, right, width)};
            lower = {stretched(line_below, left, width), stretched(line_below, right, width)};
            upper_row = row.low;
            if (free & LEFT_COLUMN) faulty |= !(finite(upper.left) && finite(lower.left));
            if (free & RIGHT_COLUMN) faulty |= !(finite(upper.right) && finite(lower.right));
        }
        const bool visible_left = (lower.left - upper.left) * row.weight + upper.left > 0;
        const bool visible_right = (lower.right - upper.right) * row.weight + upper.right > 0;
        result |= (pixels & (visible_left | visible_right << 1)) << 2 * line;
    }
    return result;
}

__device__ inline int sum_of_warp(int value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
    for (int distance = 16; distance; distance /= 2) value += __shfl_xor_sync(ALL, value, distance);
    return value;
#else
    return static_cast<int>(__reduce_add_sync(ALL, static_cast<unsigned>(value)));
#endif
}

// Walk along the list; `values` gets what each pixel shows, `free` loses the pixels that were taken.
template <bool BOX, typename T>
__device__ inline void take_pixels(
    const Task<T> &task, Shared &shared, int listed, unsigned &free, unsigned (&values)[LINES * COLUMNS],
    bool &faulty) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const Sample across[COLUMNS] = {shared.samples.across[2 * lane], shared.samples.across[2 * lane + 1]};
    for (int entry = 0; entry < listed; ++entry) {
        if (!__any_sync(ALL, free != 0)) return;
        const Listed &box = shared.listed[entry];
        const unsigned won =
            free ? covered<BOX>(task, across, shared.samples.down + warp * LINES, box, free, faulty) : 0;
        if (!__any_sync(ALL, won != 0)) continue;
        free &= ~won;
#pragma unroll
        for (int pixel = 0; pixel < LINES * COLUMNS; ++pixel)
            if (won >> pixel & 1) values[pixel] = box.value;
        const int area = sum_of_warp(__popc(won));
        if (lane == 0) atomicAdd(&shared.areas[entry], area);
    }
}

// The value of a pixel in the semantic map: of its instance, else of the class map.
template <typename T>
__device__ inline unsigned char semantic_value(const Task<T> &task, unsigned value, int row, int column) {
    const unsigned char thing = value >> 16;
    if (thing || !task.class_map) return thing;
    // NO_CLASS, 255, becomes 0.
    return static_cast<unsigned char>(task.class_map[row * task.grid_width + column] + 1);
}

template <typename T>
__device__ inline void store(
    const Task<T> &task, const Camera &camera, Tile tile, const Samples &samples,
    const unsigned (&values)[LINES * COLUMNS]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int x = tile.left + 2 * lane;
    const bool pairs = camera.map_width % 2 == 0 && reinterpret_cast<unsigned long long>(task.map) % 4 == 0 &&
                       reinterpret_cast<unsigned long long>(task.semantic) % 2 == 0;
    if (x >= camera.map_width) return;
    const bool two = x + 1 < camera.map_width;
    const Sample *across = samples.across + 2 * lane;
#pragma unroll
    for (int line = 0; line < LINES; ++line) {
        const int y = tile.top + warp * LINES + line;
        if (y >= camera.map_height) return;
        const long long pixel = static_cast<long long>(y) * camera.map_width + x;
        const unsigned left = values[2 * line], right = values[2 * line + 1];
        if (pairs) {
            *reinterpret_cast<unsigned *>(task.map + pixel) = (left & 0xffff) | right << 16;
        } else {
            task.map[pixel] = static_cast<unsigned short>(left);
            if (two) task.map[pixel + 1] = static_cast<unsigned short>(right);
        }
        if (!task.semantic) continue;
        const int row = samples.down[warp * LINES + line].cell;
        const unsigned char left_class = semantic_value(task, left, row, across[0].cell);
        const unsigned char right_class = two ? semantic_value(task, right, row, across[1].cell) : 0;
        if (pairs) {
            *reinterpret_cast<unsigned short *>(task.semantic + pixel) =
                static_cast<unsigned short>(left_class | right_class << 8);
        } else {
            task.semantic[pixel] = left_class;
            if (two) task.semantic[pixel + 1] = right_class;
        }
    }
}

template <typename T>
__device__ inline void paint_tile(const Task<T> &task, const Camera &camera, Tile tile, Shared &shared) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const Bounds bounds = bounds_of(tile, camera);
    const int lines = min(max(camera.map_height - tile.top - warp * LINES, 0), LINES);
    const int columns = min(max(camera.map_width - tile.left - lane * COLUMNS, 0), COLUMNS);
    unsigned free = (1u << lines * COLUMNS) - 1;
    if (columns < 2) free &= columns ? LEFT_COLUMN : 0;
    unsigned values[LINES * COLUMNS] = {};
    bool faulty = false, sampled = task.semantic && task.class_map;
    if (sampled)
        fill_samples(
            camera, tile, task.grid_height, task.grid_width, task.network_width, task.network_height, shared.samples);
    for (int first = 0; first < task.rows; first += TILE_THREADS) {
        const int listed = list_rows(task, bounds, first, shared);
        if (!listed) continue;
        if (!sampled)
            fill_samples(
                camera, tile, task.grid_height, task.grid_width, task.network_width, task.network_height,
                shared.samples);
        sampled = true;
        if (task.box_masks)
            take_pixels<true>(task, shared, listed, free, values, faulty);
        else
            take_pixels<false>(task, shared, listed, free, values, faulty);
        __syncthreads();
        const int entry = threadIdx.x, area = entry < listed ? shared.areas[entry] : 0;
        if (area) atomicAdd(&task.areas[shared.listed[entry].row], area);
        if (!__syncthreads_or(free != 0)) break;
    }
    if (faulty) atomicOr(task.faults, FAULTY_LOGIT);
    store(task, camera, tile, shared.samples, values);
}

// See paint_f32; the same for masks of either type.
template <typename T>
__device__ inline void paint_maps(
    const T *masks, const float *boxes, const unsigned short *numbers, const int *labels,
    const unsigned char *class_map, const Camera *cameras, const unsigned *gate, int rows, int grid_height,
    int grid_width, int box_masks, int network_width, int network_height, unsigned long long map_pitch,
    unsigned short *maps, unsigned char *semantic, int *areas, unsigned *faults, Shared &shared) {
    const unsigned long long z = blockIdx.z, cells = static_cast<unsigned long long>(grid_height) * grid_width;
    if (gate && gate[z] == 0) return;
    const Camera camera = cameras[z];
    const Task<T> task = {
        masks + z * rows * cells,
        boxes + z * rows * 4,
        numbers + z * rows,
        labels + z * rows,
        class_map ? class_map + z * cells : nullptr,
        rows,
        grid_height,
        grid_width,
        network_width,
        network_height,
        box_masks != 0,
        maps + z * map_pitch,
        semantic ? semantic + z * map_pitch : nullptr,
        areas + z * rows,
        faults + z,
    };
    for (int index = blockIdx.x; index < tile_count(camera); index += gridDim.x)
        paint_tile(task, camera, tile_at(index, camera), shared);
}

}  // namespace painting

// Paint the maps of a batch; z = camera of the batch, x walks over its tiles.
//
// masks: [B, rows, grid_height, grid_width], logits, spanning the network input or, with box_masks, each box.
// boxes: [B, rows, 4], network pixels, best row first. numbers, labels: [B, rows]; number 0 leaves a row out.
// class_map: uint8 [B, grid_height, grid_width] or null. gate: [B] or null; a camera with 0 is passed over.
// maps + z * map_pitch: uint16 [map_height, map_width], every pixel is written. semantic: uint8 the same way, or null.
// areas: [B, rows], the pixels of each row are added. faults: [B], FAULTY_LOGIT is set.
extern "C" __global__ void __launch_bounds__(TILE_THREADS, painting::BLOCKS) paint_f32(
    const float *__restrict__ masks, const float *__restrict__ boxes, const unsigned short *__restrict__ numbers,
    const int *__restrict__ labels, const unsigned char *__restrict__ class_map, const Camera *__restrict__ cameras,
    const unsigned *__restrict__ gate, int rows, int grid_height, int grid_width, int box_masks, int network_width,
    int network_height, unsigned long long map_pitch, unsigned short *__restrict__ maps,
    unsigned char *__restrict__ semantic, int *__restrict__ areas, unsigned *__restrict__ faults) {
    __shared__ painting::Shared shared;
    painting::paint_maps(
        masks, boxes, numbers, labels, class_map, cameras, gate, rows, grid_height, grid_width, box_masks,
        network_width, network_height, map_pitch, maps, semantic, areas, faults, shared);
}

// The same for masks in half precision.
extern "C" __global__ void __launch_bounds__(TILE_THREADS, painting::BLOCKS) paint_f16(
    const Half *__restrict__ masks, const float *__restrict__ boxes, const unsigned short *__restrict__ numbers,
    const int *__restrict__ labels, const unsigned char *__restrict__ class_map, const Camera *__restrict__ cameras,
    const unsigned *__restrict__ gate, int rows, int grid_height, int grid_width, int box_masks, int network_width,
    int network_height, unsigned long long map_pitch, unsigned short *__restrict__ maps,
    unsigned char *__restrict__ semantic, int *__restrict__ areas, unsigned *__restrict__ faults) {
    __shared__ painting::Shared shared;
    painting::paint_maps(
        masks, boxes, numbers, labels, class_map, cameras, gate, rows, grid_height, grid_width, box_masks,
        network_width, network_height, map_pitch, maps, semantic, areas, faults, shared);
}
