// SPDX-License-Identifier: MIT
#include "support/random_model.h"

#include <gguf.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <map>
#include <stdexcept>

namespace kvsieve::test {

TempFile::TempFile(const std::string & suffix) {
    static std::atomic<int> count = 0;
    path_ = std::filesystem::temp_directory_path() /
            ("kvsieve_" + std::to_string(getpid()) + "_" + std::to_string(count++) + suffix);
}

TempFile::~TempFile() {
    std::error_code error;
    std::filesystem::remove(path_, error);
}

struct GgufEdit::Impl {
    struct Matrix {
        std::string name;
        ggml_type type;
        std::vector<int64_t> ne;
        std::vector<uint8_t> data;
    };
    gguf_context * gguf = nullptr;
    std::vector<Matrix> tensors;

    ~Impl() { gguf_free(gguf); }
    Matrix & find(const std::string & name) {
        const auto found =
            std::find_if(tensors.begin(), tensors.end(), [&](const Matrix & m) { return m.name == name; });
        if (found == tensors.end()) {
            throw std::runtime_error("no tensor " + name);
        }
        return *found;
    }
};

GgufEdit::GgufEdit(const std::filesystem::path & path) : impl_(std::make_unique<Impl>()) {
    ggml_context * ctx = nullptr;
    impl_->gguf = gguf_init_from_file(path.string().c_str(), {.no_alloc = false, .ctx = &ctx});
    if (impl_->gguf == nullptr) {
        throw std::runtime_error("cannot read " + path.string());
    }
    for (int64_t i = 0; i < gguf_get_n_tensors(impl_->gguf); ++i) {
        const ggml_tensor * t = ggml_get_tensor(ctx, gguf_get_tensor_name(impl_->gguf, i));
        const auto * data = static_cast<const uint8_t *>(t->data);
        impl_->tensors.push_back({t->name, t->type, {t->ne, t->ne + ggml_n_dims(t)}, {data, data + ggml_nbytes(t)}});
    }
    ggml_free(ctx);
}

GgufEdit::~GgufEdit() = default;

void GgufEdit::set(const std::string & key, const std::string & value) {
    gguf_set_val_str(impl_->gguf, key.c_str(), value.c_str());
}

void GgufEdit::set(const std::string & key, float value) {
    gguf_set_val_f32(impl_->gguf, key.c_str(), value);
}

void GgufEdit::set(const std::string & key, uint32_t value) {
    gguf_set_val_u32(impl_->gguf, key.c_str(), value);
}

void GgufEdit::remove_key(const std::string & key) {
    gguf_remove_key(impl_->gguf, key.c_str());
}

void GgufEdit::add_vector(const std::string & name, const std::vector<float> & values) {
    const auto * bytes = reinterpret_cast<const uint8_t *>(values.data());
    impl_->tensors.push_back(
        {name, GGML_TYPE_F32, {static_cast<int64_t>(values.size())}, {bytes, bytes + values.size() * sizeof(float)}});
}

void GgufEdit::fuse(const std::vector<std::string> & names, const std::string & fused) {
    Impl::Matrix all = impl_->find(names.front());
    all.name = fused;
    for (size_t i = 1; i < names.size(); ++i) {
        const Impl::Matrix & part = impl_->find(names[i]);
        all.ne.back() += part.ne.back();
        all.data.insert(all.data.end(), part.data.begin(), part.data.end());
    }
    std::erase_if(impl_->tensors,
                  [&](const Impl::Matrix & m) { return std::find(names.begin(), names.end(), m.name) != names.end(); });
    impl_->tensors.push_back(std::move(all));
}

std::vector<float> GgufEdit::values(const std::string & name) const {
    const Impl::Matrix & m = impl_->find(name);
    int64_t n = 1;
    for (const int64_t ne : m.ne) {
        n *= ne;
    }
    std::vector<float> out(static_cast<size_t>(n));
    if (m.type == GGML_TYPE_F32) {
        std::copy_n(reinterpret_cast<const float *>(m.data.data()), n, out.data());
    } else {
        ggml_get_type_traits(m.type)->to_float(m.data.data(), out.data(), n);
    }
    return out;
}

void GgufEdit::write(const std::filesystem::path & path) const {
    gguf_context * out = gguf_init_empty();
    gguf_set_kv(out, impl_->gguf);
    ggml_context * ctx = ggml_init({ggml_tensor_overhead() * (impl_->tensors.size() + 1), nullptr, true});
    for (Impl::Matrix & m : impl_->tensors) {
        ggml_tensor * t = ggml_new_tensor(ctx, m.type, static_cast<int>(m.ne.size()), m.ne.data());
        ggml_set_name(t, m.name.c_str());
        t->data = m.data.data();
        gguf_add_tensor(out, t);
    }
    const bool written = gguf_write_to_file(out, path.string().c_str(), false);
    ggml_free(ctx);
    gguf_free(out);
    if (!written) {
        throw std::runtime_error("cannot write " + path.string());
    }
}

ModelShape narrow_shape(int32_t n_layer, int32_t n_ctx) {
    ModelShape shape;
    shape.n_layer = n_layer;
    shape.n_embd = 64;
    shape.n_head = 4;
    shape.n_head_kv = 2;
    shape.head_dim = 64;
    shape.n_ff = 96;
    shape.n_vocab = 270;
    shape.n_ctx = n_ctx;
    shape.type = GGML_TYPE_F32;
    return shape;
}

std::vector<int32_t> some_tokens(size_t n, uint32_t seed, int32_t n_vocab) {
    std::vector<int32_t> out(n);
    uint32_t state = seed * 2654435761U + 1U;
    for (int32_t & token : out) {
        state = state * 1664525U + 1013904223U;
        token = 5 + static_cast<int32_t>((state >> 8U) % static_cast<uint32_t>(n_vocab - 5));
    }
    return out;
}

void write_model(const ModelShape & shape, const std::filesystem::path & path,
                 const std::function<void(GgufEdit &)> & edit) {
    {
        std::ofstream file(path, std::ios::binary);
        write_random_model(shape, [&](const void * data, size_t n) {
            file.write(static_cast<const char *>(data), static_cast<std::streamsize>(n));
        });
        if (!file.flush()) {
            throw std::runtime_error("cannot write " + path.string());
        }
    }
    if (edit) {
        GgufEdit change(path);
        edit(change);
        change.write(path);
    }
}

}  // namespace kvsieve::test
