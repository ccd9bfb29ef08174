"""The forward pass in float64 numpy, written from the description of the architecture alone.

Slow and obvious on purpose: one document, one token, one head at a time, no cache, no batching, nothing
shared with `sambay`. It takes a `config.json` as a dict and the weights as arrays by their disk names.
"""

import math

import numpy as np


def layer_types(layers):
    """What each layer is: half of the layers read the text, the other half reads what they found."""
    half = layers // 2
    types = []
    for layer in range(layers):
        if layer % 2 == 0:
            types.append("mamba" if layer < half else "memory" if layer == half else "gmu")
        else:
            types.append("window" if layer < half else "full" if layer == half + 1 else "cross")
    return types


def shapes(config):
    """Disk name -> shape of every tensor of a model."""
    h, vocab, inter = config["hidden_size"], config["vocab_size"], config["intermediate_size"]
    d = config["mamba_expand"] * h
    states, rank = config["mamba_d_state"], config["mamba_dt_rank"]
    width = config.get("head_dim") or h // config["num_attention_heads"]
    q, kv = config["num_attention_heads"] * width, config["num_key_value_heads"] * width
    out = {}

    def linear(name, to, fro, bias):
        out[f"{name}.weight"] = (to, fro)
        if bias:
            out[f"{name}.bias"] = (to,)

    def norm(name):
        out[f"{name}.weight"] = (h,)
        if config.get("norm_type", "layernorm") == "layernorm":
            out[f"{name}.bias"] = (h,)

    out["model.embed_tokens.weight"] = (vocab, h)
    for layer, kind in enumerate(layer_types(config["num_hidden_layers"])):
        block = f"model.layers.{layer}"
        name = f"{block}.attn"
        norm(f"{block}.input_layernorm")
        norm(f"{block}.post_attention_layernorm")
        linear(f"{block}.mlp.fc1", 2 * inter, h, config.get("mlp_bias", False))
        linear(f"{block}.mlp.fc2", h, inter, config.get("mlp_bias", False))
        if kind in ("mamba", "memory"):
            linear(f"{name}.in_proj", 2 * d, h, config.get("mamba_proj_bias", False))
            out[f"{name}.conv1d.weight"] = (d, 1, config["mamba_d_conv"])
            if config.get("mamba_conv_bias", True):
                out[f"{name}.conv1d.bias"] = (d,)
            linear(f"{name}.x_proj", rank + 2 * states, d, False)
            linear(f"{name}.dt_proj", d, rank, True)
            out[f"{name}.A_log"] = (d, states)
            out[f"{name}.D"] = (d,)
            linear(f"{name}.out_proj", h, d, config.get("mamba_proj_bias", False))
        elif kind == "gmu":
            linear(f"{name}.in_proj", d, h, config.get("mamba_proj_bias", False))
            linear(f"{name}.out_proj", h, d, config.get("mamba_proj_bias", False))
        else:
            bias = config.get("attention_bias", True)
            linear(f"{name}.Wqkv", q if kind == "cross" else q + 2 * kv, h, bias)
            linear(f"{name}.out_proj", h, q, bias)
            if config.get("differential_attention", True):
                for key in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
                    out[f"{name}.inner_cross_attn.{key}"] = (width,)
                out[f"{name}.inner_cross_attn.subln.weight"] = (2 * width,)
    norm("model.final_layernorm")
    if not config.get("tie_word_embeddings", True):
        out["lm_head.weight"] = (vocab, h)
    if config.get("lm_head_bias", False):
        out["lm_head.bias"] = (vocab,)
    return out


def random_weights(config, seed):
    """Float32 weights with which every part matters: sharp attention, memories of all spans, no zero bias."""
    rng = np.random.default_rng(seed)
    out = {}
    for name, shape in shapes(config).items():
        value = rng.standard_normal(shape)
        if name.endswith("A_log"):
            value = np.log(rng.uniform(0.1, 3.0, shape))
        elif name.endswith("dt_proj.bias"):
            value -= 1
        elif name.endswith(("norm.weight", "subln.weight", ".D")):
            value = 1 + 0.3 * value
        elif name.endswith("Wqkv.weight"):
            value *= 2 / math.sqrt(shape[1])
        elif name.endswith("conv1d.weight"):
            value /= math.sqrt(shape[2])
        elif len(shape) == 2:
            value /= 1 if "embed" in name else math.sqrt(shape[1])
        else:  # biases, lambdas
            value *= 0.3
        out[name] = value.astype(np.float32)
    return out


def silu(x):
    return x / (1 + np.exp(-x))


def softplus(x):
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


def softmax(scores):
    e = np.exp(scores - scores.max())
    return e / e.sum()


class Oracle:
    """One model.

    Args:
        config: a `config.json`, parsed.
        weights: arrays by disk name.
    """

    def __init__(self, config, weights):
        self.config = config
        self.weights = {name: np.asarray(value, dtype=np.float64) for name, value in weights.items()}
        self.heads = config["num_attention_heads"]
        self.kv_heads = config["num_key_value_heads"]
        self.width = config.get("head_dim") or config["hidden_size"] // self.heads
        self.differential = config.get("differential_attention", True)

    def linear(self, x, name):
        out = x @ self.weights[f"{name}.weight"].T
        return out + self.weights[f"{name}.bias"] if f"{name}.bias" in self.weights else out

    def norm(self, x, name):
        eps, weight = self.config["layer_norm_eps"], self.weights[f"{name}.weight"]
        if self.config.get("norm_type", "layernorm") == "rmsnorm":
            return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + self.weights[f"{name}.bias"]

    def mamba(self, x, name):
        """Returns the layer's output and the scan output: with the D skip, before the gate."""
        config, w = self.config, self.weights
        taps, states, rank = config["mamba_d_conv"], config["mamba_d_state"], config["mamba_dt_rank"]
        u, z = np.split(self.linear(x, f"{name}.in_proj"), 2, axis=-1)
        kernel = w[f"{name}.conv1d.weight"][:, 0]  # (channels, taps): the last tap is the present
        convolved = np.zeros_like(u)
        for t in range(len(u)):
            for tap in range(taps):
                source = t - (taps - 1) + tap
                if source >= 0:
                    convolved[t] += kernel[:, tap] * u[source]
        if f"{name}.conv1d.bias" in w:
            convolved = convolved + w[f"{name}.conv1d.bias"]
        u = silu(convolved)
        parts = self.linear(u, f"{name}.x_proj")
        dt, b, c = parts[:, :rank], parts[:, rank : rank + states], parts[:, rank + states :]
        dt = softplus(self.linear(dt, f"{name}.dt_proj"))
        a = -np.exp(w[f"{name}.A_log"])  # (channels, states)
        h = np.zeros_like(a)
        y = np.zeros_like(u)
        for t in range(len(u)):
            h = np.exp(dt[t][:, None] * a) * h + (dt[t] * u[t])[:, None] * b[t][None, :]
            y[t] = h @ c[t] + w[f"{name}.D"] * u[t]
        return self.linear(y * silu(z), f"{name}.out_proj"), y

    def attend(self, q, keys, values, window, name, layer):
        """Queries (T, heads, width), keys and values (T, kv heads, width) -> (T, heads * width)."""
        out = np.zeros_like(q)
        group = self.heads // self.kv_heads
        for t in range(len(q)):
            first = 0 if window is None else max(0, t - window + 1)

            def softmax_map(head, kv_head, t=t, first=first):
                return softmax(keys[first : t + 1, kv_head] @ q[t, head] / math.sqrt(self.width))

            if not self.differential:
                for head in range(self.heads):
                    out[t, head] = softmax_map(head, head // group) @ values[first : t + 1, head // group]
                continue
            w = {key: self.weights[f"{name}.inner_cross_attn.{key}"] for key in
                 ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2", "subln.weight")}  # fmt: skip
            start = 0.8 - 0.6 * math.exp(-0.3 * layer)
            lam = math.exp(w["lambda_q1"] @ w["lambda_k1"]) - math.exp(w["lambda_q2"] @ w["lambda_k2"]) + start
            for pair in range(self.heads // 2):
                kv = pair // group  # pair of key-value heads
                wide = np.concatenate([values[first : t + 1, 2 * kv], values[first : t + 1, 2 * kv + 1]], axis=-1)
                o = softmax_map(2 * pair, 2 * kv) @ wide - lam * (softmax_map(2 * pair + 1, 2 * kv + 1) @ wide)
                o = o / math.sqrt((o * o).mean() + 1e-5) * w["subln.weight"] * (1 - start)
                out[t, 2 * pair], out[t, 2 * pair + 1] = o[: self.width], o[self.width :]
        return self.linear(out.reshape(len(q), -1), f"{name}.out_proj")

    def split_heads(self, x):
        return x.reshape(len(x), -1, self.width)

    def logits(self, ids):
        """(T,) token ids of one document -> (T, vocabulary)."""
        config = self.config
        scale = config.get("residual_multiplier", 1.0)
        x = self.weights["model.embed_tokens.weight"][np.asarray(ids)]
        memory = keys = values = None
        for layer, kind in enumerate(layer_types(config["num_hidden_layers"])):
            name = f"model.layers.{layer}.attn"
            normed = self.norm(x, f"model.layers.{layer}.input_layernorm")
            if kind in ("mamba", "memory"):
                mixed, scanned = self.mamba(normed, name)
                if kind == "memory":
                    memory = scanned
            elif kind == "gmu":
                mixed = self.linear(memory * silu(self.linear(normed, f"{name}.in_proj")), f"{name}.out_proj")
            else:
                qkv = self.split_heads(self.linear(normed, f"{name}.Wqkv"))
                q = qkv[:, : self.heads]
                if kind == "cross":
                    assert qkv.shape[1] == self.heads
                else:
                    k, v = (
                        qkv[:, self.heads : self.heads + self.kv_heads],
                        qkv[:, self.heads + self.kv_heads :],
                    )
                if kind == "full":
                    keys, values = k, v
                if kind == "window":
                    mixed = self.attend(q, k, v, config["sliding_window"], name, layer)
                else:
                    mixed = self.attend(q, keys, values, None, name, layer)
            x = x + scale * mixed
            normed = self.norm(x, f"model.layers.{layer}.post_attention_layernorm")
            gate, up = np.split(self.linear(normed, f"model.layers.{layer}.mlp.fc1"), 2, axis=-1)
            x = x + scale * self.linear(up * silu(gate), f"model.layers.{layer}.mlp.fc2")
        x = self.norm(x, "model.final_layernorm")
        head = "model.embed_tokens" if config.get("tie_word_embeddings", True) else "lm_head"
        out = x @ self.weights[f"{head}.weight"].T
        if "lm_head.bias" in self.weights:
            out = out + self.weights["lm_head.bias"]
        return out * config.get("logits_multiplier", 1.0)
