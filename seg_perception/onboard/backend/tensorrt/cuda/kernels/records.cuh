// What the kernels read of each frame of a batch. cuda/records.py lays out the same bytes.
//
// Everything that may change from frame to frame is read from device memory, never passed as a kernel argument, so that
// a captured graph serves every frame.

#pragma once

// The values of records.ENCODINGS.
enum Encoding : int { BGR = 0, RGB, BGRA, RGBA, MONO, UYVY, YUYV, NV12, NV21, BAYER_RGGB, BAYER_BGGR, BAYER_GBRG, BAYER_GRBG };

struct Camera {
    unsigned long long pixels;  // where the frame begins in the block of frames, in bytes
    unsigned long long ignore;  // address of the ignore mask's sums, double [ignore_height + 1][ignore_width + 1]; or 0
    int width, height;          // of the camera image, in pixels
    int step;                   // bytes from one row to the next
    int encoding;               // an Encoding
    int content_width, content_height, left, top;  // the image within the network input, in network pixels
    int pad_value;              // grey level around it
    int map_width, map_height;  // of the instance map, in pixels
    int ignore_width, ignore_height;
    int min_pixels;             // instances with fewer visible pixels are left out
    double group_iou;           // suppression across the classes of a road group, as exact as the CPU compares it
};
static_assert(sizeof(Camera) == 80, "records.py has the same layout");

// Bits of the faults of a frame: records.Fault.
constexpr unsigned FAULTY_LOGIT = 1;   // a mask logit that was needed is NaN or infinite
constexpr unsigned FAULTY_CLASS = 2;   // the class map says that the network produced NaN or infinity
constexpr unsigned UNKNOWN_CLASS = 4;  // the class map has a class that there is not
