//! Models: training at a pinned cut, scoring as vectorized functions, evaluation.
