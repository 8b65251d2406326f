// Where the pixels of a map fall on a grid over the network input: the float64 arithmetic of backend/host/paint.py and
// backend/host/cells.py, step by step, so that the results are the same. Maps are worked on in tiles; the float64 work is
// done once for each column and each row of a tile.

#pragma once

#include "records.cuh"

constexpr int TILE_WIDTH = 64, TILE_HEIGHT = 32;  // paint.py has the same
constexpr int TILE_THREADS = 128;
constexpr int TILE_SIDES = TILE_WIDTH + TILE_HEIGHT;

// The tiles of a map, row by row. A grid of blocks walks over all of them, however many blocks it has.
struct Tile {
    int left, top;
};

__device__ inline int tiles_across(const Camera &camera) { return (camera.map_width + TILE_WIDTH - 1) / TILE_WIDTH; }

__device__ inline int tile_count(const Camera &camera) {
    return tiles_across(camera) * ((camera.map_height + TILE_HEIGHT - 1) / TILE_HEIGHT);
}

__device__ inline Tile tile_at(int index, const Camera &camera) {
    const int across = tiles_across(camera);
    return {index % across * TILE_WIDTH, index / across * TILE_HEIGHT};
}

// One column or row of a map.
struct alignas(16) Sample {
    float centre;         // in network pixels, rounded down: for a float b, `exact < b` is `centre < b`
    float rest;           // what was rounded off
    float weight;         // share of the higher neighbour on the grid
    unsigned short low;   // the lower neighbour
    unsigned short cell;  // the cell that contains the centre
};

// The columns and rows of a tile.
struct Samples {
    double pixel_scale[2];  // network pixels per map pixel, across and down
    double cell_scale[2];   // cells per network pixel
    Sample across[TILE_WIDTH], down[TILE_HEIGHT];
};

__device__ inline Sample sample_at(int pixel, double pixel_scale, int padding, double cell_scale, int size) {
    const double centre = (pixel + 0.5) * pixel_scale + padding;
    const double cells = centre * cell_scale;
    const double position = min(max(cells - 0.5, 0.0), size - 1.0);
    const int low = static_cast<int>(position);
    const float down = __double2float_rd(centre);
    return {
        down,
        static_cast<float>(centre - down),
        static_cast<float>(position - low),
        static_cast<unsigned short>(low),
        static_cast<unsigned short>(min(static_cast<int>(cells), size - 1)),
    };
}

// Fill `samples` for a tile. All threads of the block come here together: between its two barriers nobody looks at the
// samples of the tile before any more, nor yet at these.
__device__ inline void fill_samples(
    const Camera &camera, Tile tile, int grid_height, int grid_width, int network_width, int network_height,
    Samples &samples) {
    const int thread = threadIdx.x;
    // Float64 division is the slowest thing here, and costs a warp the same for one lane as for all.
    if (thread < 4) {
        const int content = thread & 1 ? camera.content_height : camera.content_width;
        const int length = thread & 1 ? camera.map_height : camera.map_width;
        const int size = thread & 1 ? grid_height : grid_width;
        const int network = thread & 1 ? network_height : network_width;
        const double quotient = static_cast<double>(thread < 2 ? content : size) / (thread < 2 ? length : network);
        (thread < 2 ? samples.pixel_scale : samples.cell_scale)[thread & 1] = quotient;
    }
    __syncthreads();
    if (thread < TILE_SIDES) {
        const bool down = thread >= TILE_WIDTH;
        const int index = down ? thread - TILE_WIDTH : thread;
        (down ? samples.down : samples.across)[index] = sample_at(
            index + (down ? tile.top : tile.left), samples.pixel_scale[down], down ? camera.top : camera.left,
            samples.cell_scale[down], down ? grid_height : grid_width);
    }
    __syncthreads();
}
