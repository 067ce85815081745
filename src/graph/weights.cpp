// SPDX-License-Identifier: MIT
#include "graph/weights.h"

#include <algorithm>
#include <array>

#include "kvsieve/error.h"

namespace kvsieve {
namespace {

std::string shape_text(const std::array<int64_t, 4> & ne) {
    size_t n = ne.size();
    while (n > 1 && ne[n - 1] == 1) {
        --n;
    }
    std::string text = "[";
    for (size_t i = 0; i < n; ++i) {
        text += (i == 0 ? "" : ", ") + std::to_string(ne[i]);
    }
    return text + "]";
}

}  // namespace

Weights::Weights(const GgufFile & file) : file_(file) {
    const ggml_init_params params = {ggml_tensor_overhead() * (file.tensors().size() + 1), nullptr, true};
    ctx_ = ggml_init(params);
    if (ctx_ == nullptr) {
        throw Error(ErrorCode::runtime, "not enough memory for the descriptions of the weights");
    }
}

Weights::~Weights() {
    ggml_free(ctx_);
}

ggml_tensor * Weights::require(const std::string & name, std::initializer_list<int64_t> ne) {
    ggml_tensor * tensor = optional(name, ne);
    if (tensor == nullptr) {
        throw Error(ErrorCode::bad_input, file_.path().string() + ": the tensor " + name + " is missing");
    }
    return tensor;
}

ggml_tensor * Weights::optional(const std::string & name, std::initializer_list<int64_t> ne) {
    const GgufTensor * found = file_.find(name);
    if (found == nullptr) {
        return nullptr;
    }
    std::array<int64_t, 4> expected{1, 1, 1, 1};
    std::copy(ne.begin(), ne.end(), expected.begin());
    if (found->ne != expected) {
        throw Error(ErrorCode::bad_input, file_.path().string() + ": the tensor " + name + " has shape " +
                                              shape_text(found->ne) + ", expected " + shape_text(expected));
    }
    if (used_.insert(name).second) {
        bytes_ += found->nbytes;
    }
    if (ggml_tensor * known = ggml_get_tensor(ctx_, name.c_str())) {
        return known;
    }
    ggml_tensor * tensor =
        ggml_new_tensor_4d(ctx_, found->type, found->ne[0], found->ne[1], found->ne[2], found->ne[3]);
    ggml_set_name(tensor, name.c_str());
    tensor->data = const_cast<void *>(found->data);  // read only: the mapping is private
    return tensor;
}

void Weights::check_all_used(std::string_view arch) const {
    for (const GgufTensor & tensor : file_.tensors()) {
        if (used_.count(tensor.name) == 0) {
            throw Error(ErrorCode::bad_input, file_.path().string() + ": the tensor " + tensor.name +
                                                  " is not one that architecture " + std::string(arch) + " computes");
        }
    }
}

}  // namespace kvsieve
