"""Real-valued features in fewer neurons than features: networks trained side by side, errors by feature, baselines, proofs."""
