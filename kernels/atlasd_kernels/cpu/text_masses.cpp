// How much votes count: the native twin of atlasd.draft.masses.
#include <algorithm>
#include <cmath>

#include "text.h"

namespace atlasd::text {

namespace {

constexpr int kPlaceKinds = 1024;
constexpr int kTables = kVoteKinds / kTableKinds;
constexpr int kAgreeingPlaces = 3, kAgreeingTables = 4;
constexpr int kCompany = kVoteKinds + kPlaceKinds;
constexpr int kRank = kCompany + (kTables + 1) * (kAgreeingPlaces + 1) * (kAgreeingTables + 1);
constexpr int kAge = kRank + kLost + 1;
constexpr int kNumbers = kAge + kAges;
constexpr double kStill = 0.003;  // a gradient that moves nothing

constexpr double kRecycleRates[kVoteKinds] = {
    0.3,  0.3,  0.3,  0.42, 0.23, 0.59, 0.2,  0.73, 0.27, 0.84, 0.25, 0.85, 0.25, 0.85, 0.25, 0.85,
    0.15, 0.12, 0.15, 0.15, 0.1,  0.25, 0.25, 0.25, 0.19, 0.19, 0.3,  0.27, 0.21, 0.55, 0.18, 0.63,
    0.17, 0.69, 0.21, 0.68, 0.21, 0.73, 0.39, 0.64, 0.09, 0.06, 0.1,  0.1,  0.16, 0.1,  0.07, 0.11,
    0.11, 0.24, 0.11, 0.16, 0.11, 0.24, 0.14, 0.4,  0.15, 0.6,  0.13, 0.63, 0.15, 0.66, 0.25, 0.74,
    0.07, 0.1,  0.11, 0.08, 0.09, 0.12, 0.12, 0.09, 0.2,  0.3,  0.2,  0.45, 0.2,  0.6,  0.2,  0.6,
    0.2,  0.7,  0.24, 0.72, 0.22, 0.71, 0.3,  0.65, 0.26, 0.26, 0.15, 0.2,  0.16, 0.15, 0.14, 0.14};

// Of places by match length, then of those that continue the last draft.
constexpr double kPlaceRates[2][16] = {
    {0.02, 0.35, 0.4, 0.3, 0.42, 0.49, 0.55, 0.65, 0.7, 0.76, 0.83, 0.85, 0.88, 0.9, 0.9, 0.9},
    {0.02, 0.35, 0.51, 0.62, 0.72, 0.73, 0.73, 0.75, 0.76, 0.78, 0.83, 0.88, 0.89, 0.89, 0.89, 0.89}};

double rate_of(int kind) {
  const int place = kind - kVoteKinds;
  if (place < 0) return kRecycleRates[kind];
  if (place & 16) return place & 2 ? 0.2 : 0.06;
  return kPlaceRates[place >> 1 & 1][place >> 6];
}

}  // namespace

Masses::Masses() : value(kNumbers, 1.0), seen(kNumbers, 0.0) {
  for (int kind = 0; kind < kCompany; kind++) value[kind] = rate_of(kind) / (1.0 - rate_of(kind));
}

double Masses::weigh(Vote* begin, Vote* end, std::vector<Backed>& tokens) const {
  tokens.clear();
  for (Vote* vote = begin; vote < end; vote++) {
    size_t at = 0;
    while (at < tokens.size() && tokens[at].token != vote->token) at++;
    if (at == tokens.size()) tokens.push_back({vote->token, 0, 0, 0.0});
    (vote->rank < 0 ? tokens[at].tables : tokens[at].places)++;
    vote->backed = int32_t(at);
  }
  double total = 1.0;
  for (Vote* vote = begin; vote < end; vote++) {
    Backed& token = tokens[vote->backed];
    const int32_t source = vote->rank < 0 ? vote->kind / kTableKinds : kTables;
    const int32_t places = std::min(kAgreeingPlaces, token.places);
    const int32_t tables = std::min(kAgreeingTables, token.tables);
    vote->company =
        kCompany + (source * (kAgreeingPlaces + 1) + places) * (kAgreeingTables + 1) + tables;
    double weight = value[vote->kind] * vote->share;
    weight *= value[vote->company];
    if (vote->rank >= 0) {
      weight *= value[kRank + vote->rank];
      weight *= value[kAge + vote->age];
    }
    vote->weight = weight;
    token.weight += weight;
    total += weight;
  }
  return total;
}

void Masses::learn(Vote* begin, Vote* end, int32_t token) {
  const double total = weigh(begin, end, backed_);
  double right = 0.0;
  for (const Backed& one : backed_)
    if (one.token == token) right = one.weight;
  for (const Vote* vote = begin; vote < end; vote++) {
    double gradient = -vote->weight / total;
    if (vote->token == token) gradient += vote->weight / right;
    if (-kStill < gradient && gradient < kStill) continue;
    move(vote->kind, gradient, 0.01, 200.0);
    move(vote->company, gradient, 0.4, 2.5);
    if (vote->rank < 0) continue;
    move(kRank + vote->rank, gradient, 0.4, 2.5);
    move(kAge + vote->age, gradient, 0.4, 2.5);
  }
}

void Masses::move(int32_t number, double gradient, double least, double most) {
  seen[number] = std::min(seen[number] + 1.0, 150.0);
  const double moved = value[number] * std::exp(gradient * 8.0 / (8.0 + seen[number]));
  value[number] = moved < least ? least : moved > most ? most : moved;
}

}  // namespace atlasd::text
