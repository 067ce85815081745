// SPDX-License-Identifier: MIT
#include "engine/stop_filter.h"

#include <algorithm>
#include <utility>

#include "kvsieve/error.h"

namespace kvsieve {

StopFilter::StopFilter(std::vector<std::string> stops) : stops_(std::move(stops)) {
    if (std::any_of(stops_.begin(), stops_.end(), [](const std::string & s) { return s.empty(); })) {
        throw Error(ErrorCode::invalid_argument, "a stop text is empty, expected at least one character");
    }
}

std::string StopFilter::push(std::string_view text) {
    if (stopped_) {
        return {};
    }
    held_ += text;
    size_t found = std::string::npos;
    for (const std::string & stop : stops_) {
        found = std::min(found, held_.find(stop));
    }
    if (found != std::string::npos) {
        stopped_ = true;
        std::string out = held_.substr(0, found);
        held_.clear();
        return out;
    }
    size_t keep = 0;  // longest end of the text that begins a stop text
    for (const std::string & stop : stops_) {
        for (size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n) {
            if (std::string_view(held_).substr(held_.size() - n) == std::string_view(stop).substr(0, n)) {
                keep = n;
                break;
            }
        }
    }
    std::string out = held_.substr(0, held_.size() - keep);
    held_.erase(0, held_.size() - keep);
    return out;
}

std::string StopFilter::finish() {
    return std::exchange(held_, {});
}

}  // namespace kvsieve
