"""Events and bars to labels: fees, fill rules, the (delta, T) grid."""
