"""FBNet: differentiable, latency-aware architecture search (Wu et al. 2018, arXiv 1812.03443)."""
