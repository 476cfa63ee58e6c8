// How likely a drafted token is right: the native twin of atlasd.draft.confidence.
#include <algorithm>
#include <cmath>

#include "text.h"

namespace atlasd::text {

namespace {

constexpr int kBuckets = 256;
constexpr int kHashed = 2048;
constexpr double kKeep = 0.99;  // of a weight's information, what an update leaves
constexpr double kFloor = 0.002;

}  // namespace

void Offset::learn(double error, double curvature) {
  information += curvature;
  trend += 0.05 * (error - trend);
  const double most = cap / (1.0 + 40.0 * trend * trend);
  if (information > most) information = most;
  value += 0.3 * error / information;
}

Confidence::Confidence()
    : weights(kFeatures * kBuckets + 2 * kHashed, 0.0),
      information(kFeatures * kBuckets + 2 * kHashed, 2.0) {
  std::fill(information.begin() + kFeatures * kBuckets, information.end(), 4.0);
  bias.cap = 2000.0;
}

double Confidence::probability(const Stream& stream, int32_t previous, int32_t token,
                               const uint8_t* features) const {
  double z = bias.value + offsets[stream.language_offset].value +
             offsets[stream.repository_offset].value + stream.offset.value;
  z = z + weights[kFeatures * kBuckets + token % kHashed];
  z += weights[kFeatures * kBuckets + kHashed + previous % kHashed];
  for (int f = 0; f < kFeatures; f++) z += weights[f * kBuckets + features[f]];
  const double p = z > -30.0 ? 1.0 / (1.0 + std::exp(-z)) : 0.0;
  return p < kFloor ? kFloor : p;
}

void Confidence::learn(Stream& stream, int32_t previous, int32_t token, const uint8_t* features,
                       bool held) {
  int32_t index[kFeatures + 2] = {kFeatures * kBuckets + token % kHashed,
                                  kFeatures * kBuckets + kHashed + previous % kHashed};
  for (int f = 0; f < kFeatures; f++) index[f + 2] = f * kBuckets + features[f];
  Offset* local[3] = {&offsets[stream.language_offset], &offsets[stream.repository_offset],
                      &stream.offset};
  double z = bias.value;
  for (Offset* offset : local) z += offset->value;
  for (int32_t i : index) z += weights[i];
  const double p = z > -30.0 ? 1.0 / (1.0 + std::exp(-z)) : 0.0;
  const double error = (held ? 1.0 : 0.0) - p;
  if (-0.003 < error && error < 0.003) return;
  const double curvature = p * (1.0 - p) + 0.01;
  for (int32_t i : index) {
    information[i] = kKeep * information[i] + curvature;
    weights[i] += 0.5 * error / information[i];
  }
  bias.learn(error, curvature);
  for (Offset* offset : local) offset->learn(error, curvature);
}

}  // namespace atlasd::text
