"""Plain Triton kernels for every GPU that Triton knows (and its interpreter), any strides, any m up to 1024."""
