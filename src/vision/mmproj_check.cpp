// SPDX-License-Identifier: MIT
#include "vision/mmproj_check.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

#include "kvsieve/error.h"
#include "vision/mmproj_tables.h"

namespace kvsieve {
namespace {

template <size_t N>
bool contains(const std::array<std::string_view, N> & names, std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
}

class MmprojCheck {
  public:
    MmprojCheck(const GgufFile & file, int32_t n_embd) : file_(file), n_embd_text_(n_embd) {}

    MmprojInfo run() {
        check_architecture();
        check_key_types();
        check_projector();
        read_shape();
        if (projector_ == "mlp") {
            check_mlp();
        } else if (projector_ == "qwen2vl_merger" || projector_ == "qwen2.5vl_merger") {
            check_qwen();
        } else {
            check_width(positive("clip.vision.projection_dim"), "clip.vision.projection_dim", false);
        }
        for (int64_t il = 0; il < n_layer_; ++il) {
            check_layer("v.blk." + std::to_string(il) + ".");
        }
        check_types();
        return {projector_, contains(kGridProjectors, projector_) ? side_ : 0};
    }

  private:
    [[noreturn]] void fail(const std::string & what) const {
        throw Error(ErrorCode::bad_input, file_.path().string() + " " + what);
    }

    void check_architecture() const {
        const std::string architecture = file_.get_str("general.architecture");
        if (architecture != "clip") {
            fail("is a model of architecture '" + architecture +
                 "', expected a vision encoder (mmproj, architecture 'clip')");
        }
        if (!file_.get_bool("clip.has_vision_encoder", false)) {
            fail("has no vision encoder (clip.has_vision_encoder is not true)");
        }
    }

    void check_key_types() const {
        for (const KeyType & entry : kKeyTypes) {
            for (const char * prefix : {"clip.", "clip.vision.", "clip.audio.", "clip.gen.audio."}) {
                check_key_type(prefix + std::string(entry.key), entry.type);
            }
        }
        check_key_type("general.name", "str");
        check_key_type("general.description", "str");
        check_key_type("clip.gen.audio.model_variant", "str");
    }

    void check_key_type(const std::string & key, std::string_view type) const {
        if (file_.has(key) && file_.type_of(key) != type) {
            fail("has the key '" + key + "' as " + file_.type_of(key) + ", expected " + std::string(type));
        }
    }

    void check_projector() {
        projector_ = file_.get_str("clip.projector_type", "");
        if (projector_.empty()) {
            projector_ = file_.get_str("clip.vision.projector_type");
        }
        if (contains(kPlacedProjectors, projector_)) {
            fail("has the projector '" + projector_ +
                 "', whose image tokens depend on the text before them; that is not supported");
        }
        if (!contains(kVisionProjectors, projector_)) {
            fail("has the unknown projector '" + projector_ +
                 "', expected one of libmtmd's for images, such as mlp or qwen2vl_merger");
        }
    }

    int64_t positive(const std::string & key) const {
        constexpr uint32_t kMost = 1U << 20U;
        const uint32_t value = file_.get_u32(key);
        if (value == 0 || value > kMost) {
            fail("has " + std::to_string(value) + " in '" + key + "', expected 1 to " + std::to_string(kMost));
        }
        return value;
    }

    void read_shape() {
        n_embd_ = positive("clip.vision.embedding_length");
        n_head_ = positive("clip.vision.attention.head_count");
        n_layer_ = file_.get_u32("clip.vision.block_count");
        (void)file_.get_u32("clip.vision.feed_forward_length");
        (void)file_.get_f32("clip.vision.attention.layer_norm_epsilon");
        const int64_t image = positive("clip.vision.image_size");
        patch_ = positive("clip.vision.patch_size");
        if (n_layer_ < 1 || n_layer_ > 512) {
            fail("has " + std::to_string(n_layer_) + " layers, expected 1 to 512");
        }
        if (image > 8192 || patch_ > image) {
            fail("has images of " + std::to_string(image) + " and patches of " + std::to_string(patch_) +
                 " pixels on a side, expected at most 8192 and patches not larger than the image");
        }
        if (!file_.has("clip.vision.attention.head_dim") && n_embd_ % n_head_ != 0) {
            fail("has a width of " + std::to_string(n_embd_) + ", expected a multiple of its " +
                 std::to_string(n_head_) + " heads");
        }
        for (const char * key : {"clip.vision.image_mean", "clip.vision.image_std"}) {
            if (file_.type_of(key) != "arr[f32]" || file_.array_size(key) < 3) {
                fail(std::string("has no '") + key + "' of three floats");
            }
        }
        const int64_t scale = file_.get_u32("clip.vision.projector.scale_factor", projector_ == "gemma3" ? 4 : 1);
        n_side_ = image / patch_;
        side_ = static_cast<int32_t>(scale > 0 && n_side_ % scale == 0 ? n_side_ / scale : 0);
    }

    void check_width(int64_t width, const std::string & where, bool exact) const {
        // Some models carry several embeddings of the language model's width in one token.
        if (exact ? width != n_embd_text_ : width % n_embd_text_ != 0 && n_embd_text_ % width != 0) {
            fail("makes embeddings of width " + std::to_string(width) + " (" + where +
                 "), but the language model has " + std::to_string(n_embd_text_) +
                 "; the two files do not belong together");
        }
    }

    static std::string shape_text(const std::array<int64_t, 4> & ne) {
        size_t n = ne.size();
        while (n > 1 && ne[n - 1] == 1) {
            --n;
        }
        std::string text = std::to_string(ne[0]);
        for (size_t i = 1; i < n; ++i) {
            text += " x " + std::to_string(ne[i]);
        }
        return text;
    }

    const GgufTensor & tensor(const std::string & name) const {
        const GgufTensor * found = file_.find(name);
        if (found == nullptr) {
            fail("has no tensor '" + name + "', which the projector '" + projector_ + "' needs");
        }
        return *found;
    }

    void check_tensor(const std::string & name, std::array<int64_t, 4> ne) const {
        const GgufTensor & found = tensor(name);
        if (found.ne != ne) {
            fail("has the tensor '" + name + "' with the shape " + shape_text(found.ne) + ", expected " +
                 shape_text(ne));
        }
    }

    void check_if_there(const std::string & name, std::array<int64_t, 4> ne) const {
        if (file_.find(name) != nullptr) {
            check_tensor(name, ne);
        }
    }

    void check_f32(const std::string & name) const {
        const GgufTensor * found = file_.find(name);
        if (found != nullptr && found->type != GGML_TYPE_F32) {
            fail("has the tensor '" + name + "' as " + ggml_type_name(found->type) + ", expected f32");
        }
    }

    void check_patches(const std::string & name) const {
        check_tensor(name, {patch_, patch_, 3, n_embd_});
        const ggml_type type = tensor(name).type;
        if (type != GGML_TYPE_F32 && type != GGML_TYPE_F16) {
            fail("has the tensor '" + name + "' as " + ggml_type_name(type) + ", expected f32 or f16");
        }
    }

    // Two linear layers from `n_in` to the language model's width.
    void check_two_layers(int64_t n_in) const {
        const int64_t hidden = tensor("mm.0.weight").ne[1];
        check_tensor("mm.0.weight", {n_in, hidden, 1, 1});
        check_tensor("mm.0.bias", {hidden, 1, 1, 1});
        check_width(tensor("mm.2.weight").ne[1], "mm.2.weight", true);
        check_tensor("mm.2.weight", {hidden, n_embd_text_, 1, 1});
        check_tensor("mm.2.bias", {n_embd_text_, 1, 1, 1});
    }

    // The LLaVA form: ViT with class embedding or not, two linear layers as projector.
    void check_mlp() {
        const int64_t n_ff = positive("clip.vision.feed_forward_length");
        if (file_.has("clip.vision.attention.head_dim") &&
            positive("clip.vision.attention.head_dim") * n_head_ != n_embd_) {
            fail("has heads that do not add up to its width of " + std::to_string(n_embd_));
        }
        if (file_.find("mm.3.weight") != nullptr) {
            check_width(tensor("mm.3.bias").ne[0], "mm.3.bias", true);  // Yi's form
            for (const char * name :
                 {"mm.0.weight", "mm.0.bias", "mm.1.weight", "mm.1.bias", "mm.4.weight", "mm.4.bias"}) {
                (void)tensor(name);
            }
        } else {
            check_two_layers(n_embd_ * n_stacked());
        }
        check_patches("v.patch_embd.weight");
        const bool has_class = file_.find("v.class_embd") != nullptr;
        const int64_t positions = n_side_ * n_side_ + (has_class ? 1 : 0);
        const GgufTensor & place = tensor("v.position_embd.weight");
        if (place.ne[0] != n_embd_ || place.ne[1] < positions) {
            fail("has position embeddings of " + shape_text(place.ne) + ", expected " + std::to_string(n_embd_) +
                 " x " + std::to_string(positions));
        }
        check_if_there("v.class_embd", {n_embd_, 1, 1, 1});
        check_f32("v.class_embd");
        check_if_there("v.patch_embd.bias", {n_embd_, 1, 1, 1});
        for (int64_t il = 0; il < n_layer_; ++il) {
            check_vit_layer("v.blk." + std::to_string(il) + ".", n_ff);
        }
    }

    // Qwen2-VL and Qwen2.5-VL: patches of two frames, four patches merged into one token.
    void check_qwen() {
        if (file_.get_u32("clip.vision.spatial_merge_size", 2) != 2) {
            fail("has " + std::to_string(file_.get_u32("clip.vision.spatial_merge_size")) +
                 " in 'clip.vision.spatial_merge_size', expected 2");
        }
        if (file_.has("clip.vision.attention.head_dim") &&
            positive("clip.vision.attention.head_dim") * n_head_ != n_embd_) {
            fail("has heads that do not add up to its width of " + std::to_string(n_embd_));
        }
        check_patches("v.patch_embd.weight");
        check_patches("v.patch_embd.weight.1");
        for (const char * name : {"v.patch_embd.bias", "v.class_embd"}) {
            if (file_.find(name) != nullptr) {
                fail("has the tensor '" + std::string(name) + "', which a Qwen-VL encoder does not have");
            }
        }
        check_two_layers(4 * n_embd_);
        for (int64_t il = 0; il < n_layer_; ++il) {
            const std::string prefix = "v.blk." + std::to_string(il) + ".";
            for (const char * part : {"attn_q", "attn_k", "attn_v"}) {
                check_tensor(prefix + part + ".bias", {n_embd_, 1, 1, 1});
            }
            // The key may be 0 in files of the first converter.
            const std::array<int64_t, 4> & up = tensor(prefix + "ffn_up.weight").ne;
            check_vit_layer(prefix, up[0] == n_embd_ ? up[1] : up[0]);
        }
    }

    // Every layer that is named in feature_layer adds one width to the projector's input.
    int64_t n_stacked() const {
        if (!file_.has("clip.vision.feature_layer")) {
            return 1;
        }
        std::vector<int32_t> layers = file_.get_i32_array("clip.vision.feature_layer");
        std::erase_if(layers, [](int32_t il) { return il < 0; });
        std::sort(layers.begin(), layers.end());
        layers.erase(std::unique(layers.begin(), layers.end()), layers.end());
        if (!layers.empty() && layers.back() > n_layer_) {
            fail("names layer " + std::to_string(layers.back()) + " in 'clip.vision.feature_layer', but has " +
                 std::to_string(n_layer_));
        }
        return std::max<int64_t>(1, static_cast<int64_t>(layers.size()));
    }

    void check_vit_layer(const std::string & prefix, int64_t n_ff) const {
        for (const char * part : {"attn_q", "attn_k", "attn_v", "attn_out"}) {
            check_tensor(prefix + part + ".weight", {n_embd_, n_embd_, 1, 1});
            check_if_there(prefix + part + ".bias", {n_embd_, 1, 1, 1});
        }
        check_tensor(prefix + "ln1.weight", {n_embd_, 1, 1, 1});
        check_tensor(prefix + "ln2.weight", {n_embd_, 1, 1, 1});
        // Files of the first converters have up and down exchanged; libmtmd turns them round.
        const bool swapped = tensor(prefix + "ffn_down.weight").ne[0] == n_embd_;
        const std::string up = prefix + (swapped ? "ffn_down" : "ffn_up");
        const std::string down = prefix + (swapped ? "ffn_up" : "ffn_down");
        check_tensor(up + ".weight", {n_embd_, n_ff, 1, 1});
        check_if_there(up + ".bias", {n_ff, 1, 1, 1});
        check_tensor(down + ".weight", {n_ff, n_embd_, 1, 1});
        check_if_there(down + ".bias", {n_embd_, 1, 1, 1});
        check_if_there(prefix + "ffn_gate.weight", {n_embd_, n_ff, 1, 1});
    }

    void check_layer(const std::string & prefix) const {
        for (const char * norm : {"ln1", "ln2"}) {
            for (const char * part : {".weight", ".bias"}) {
                check_if_there(prefix + norm + part, {n_embd_, 1, 1, 1});
            }
        }
        for (const char * name : {"attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_qkv.weight"}) {
            const GgufTensor * found = file_.find(prefix + name);
            if (found != nullptr && found->ne[0] != n_embd_) {
                fail("has the tensor '" + found->name + "' with rows of " + std::to_string(found->ne[0]) +
                     ", expected " + std::to_string(n_embd_));
            }
        }
    }

    // Weights are floating-point numbers; ggml's additions and products with a vector take f32 only.
    void check_types() const {
        for (const GgufTensor & found : file_.tensors()) {
            const std::string_view name = found.name;
            if (found.type == GGML_TYPE_I8 || found.type == GGML_TYPE_I16 || found.type == GGML_TYPE_I32 ||
                found.type == GGML_TYPE_I64 || found.type == GGML_TYPE_F64) {
                fail("has the tensor '" + found.name + "' as " + ggml_type_name(found.type) +
                     ", expected weights in f32, f16 or quantised");
            }
            const bool is_norm = name.ends_with("ln1.weight") || name.ends_with("ln2.weight") ||
                                 name == "v.pre_ln.weight" || name == "v.post_ln.weight";
            if ((name.starts_with("v.") || name.starts_with("mm.")) && (name.ends_with(".bias") || is_norm)) {
                check_f32(found.name);
            }
        }
        for (const char * name : {"v.pre_ln.weight", "v.pre_ln.bias", "v.post_ln.weight", "v.post_ln.bias"}) {
            check_if_there(name, {n_embd_, 1, 1, 1});
        }
    }

    const GgufFile & file_;
    int64_t n_embd_text_;
    std::string projector_;
    int64_t n_embd_ = 0, n_head_ = 0, n_layer_ = 0, patch_ = 0;
    int64_t n_side_ = 0;  // patches on a side
    int32_t side_ = 0;    // tokens on a side
};

}  // namespace

MmprojInfo check_mmproj(const GgufFile & file, int32_t n_embd) {
    return MmprojCheck(file, n_embd).run();
}

}  // namespace kvsieve
