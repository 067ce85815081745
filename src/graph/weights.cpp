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

Weights::Weights(const GgufFile & file, const PackedWeights * packed) : file_(file), packed_(packed) {
    // a tensor may be wanted both as it lies in the file and as a matrix
    const ggml_init_params params = {ggml_tensor_overhead() * (2 * file.tensors().size() + 1), nullptr, true};
    ctx_ = ggml_init(params);
    if (ctx_ == nullptr) {
        throw Error(ErrorCode::runtime, "not enough memory for the descriptions of the weights");
    }
}

Weights::~Weights() {
    ggml_free(ctx_);
}

void Weights::miss(const std::string & name) const {
    throw Error(ErrorCode::bad_input, file_.path().string() + ": the tensor " + name + " is missing");
}

ggml_tensor * Weights::require(const std::string & name, std::initializer_list<int64_t> ne) {
    ggml_tensor * tensor = optional(name, ne);
    return tensor != nullptr ? tensor : (miss(name), nullptr);
}

ggml_tensor * Weights::require_matrix(const std::string & name, int64_t n_in, int64_t n_out) {
    ggml_tensor * tensor = optional_matrix(name, n_in, n_out);
    return tensor != nullptr ? tensor : (miss(name), nullptr);
}

const GgufTensor * Weights::find(const std::string & name, std::initializer_list<int64_t> ne) {
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
    return found;
}

ggml_tensor * Weights::describe(const GgufTensor & found) {
    ggml_tensor * tensor = ggml_new_tensor_4d(ctx_, found.type, found.ne[0], found.ne[1], found.ne[2], found.ne[3]);
    ggml_set_name(tensor, found.name.c_str());
    tensor->data = const_cast<void *>(found.data);  // read only: the mapping is private
    return tensor;
}

ggml_tensor * Weights::optional(const std::string & name, std::initializer_list<int64_t> ne) {
    const GgufTensor * found = find(name, ne);
    if (found == nullptr) {
        return nullptr;
    }
    ggml_tensor *& tensor = in_file_[name];
    return tensor != nullptr ? tensor : tensor = describe(*found);
}

ggml_tensor * Weights::optional_matrix(const std::string & name, int64_t n_in, int64_t n_out) {
    const GgufTensor * found = find(name, {n_in, n_out});
    if (found == nullptr) {
        return nullptr;
    }
    ggml_tensor *& tensor = matrices_[name];
    if (tensor == nullptr) {
        tensor = describe(*found);
        if (packed_ != nullptr) {
            packed_->bind(name, *tensor);
        }
    }
    return tensor;
}

std::set<std::string> Weights::matrices() const {
    std::set<std::string> names;
    for (const auto & [name, tensor] : matrices_) {
        names.insert(name);
    }
    return names;
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
