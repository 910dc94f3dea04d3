"""The papers behind the rows of the model table, as BibTeX, for `sde.cite()` and `diffflow cite`."""

from __future__ import annotations

BIBTEX: dict[str, str] = {
    "diffflow": """@article{zhang2023diffflow,
  title   = {DiffFlow: A Unified SDE Framework for Score-Based Diffusion Models and Generative Adversarial Networks},
  author  = {Zhang, Jingwei and Shi, Han and Yu, Jincheng and Xie, Enze and Li, Zhenguo},
  journal = {arXiv preprint arXiv:2307.02159},
  year    = {2023}
}""",
    "song2021": """@inproceedings{song2021score,
  title     = {Score-Based Generative Modeling through Stochastic Differential Equations},
  author    = {Song, Yang and Sohl-Dickstein, Jascha and Kingma, Diederik P. and Kumar, Abhishek and Ermon, Stefano and Poole, Ben},
  booktitle = {International Conference on Learning Representations},
  year      = {2021}
}""",
    "song2019": """@inproceedings{song2019generative,
  title     = {Generative Modeling by Estimating Gradients of the Data Distribution},
  author    = {Song, Yang and Ermon, Stefano},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2019}
}""",
    "karras2022": """@inproceedings{karras2022elucidating,
  title     = {Elucidating the Design Space of Diffusion-Based Generative Models},
  author    = {Karras, Tero and Aittala, Miika and Aila, Timo and Laine, Samuli},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2022}
}""",
    "roberts1996": """@article{roberts1996exponential,
  title   = {Exponential Convergence of {L}angevin Distributions and Their Discrete Approximations},
  author  = {Roberts, Gareth O. and Tweedie, Richard L.},
  journal = {Bernoulli},
  volume  = {2},
  number  = {4},
  pages   = {341--363},
  year    = {1996}
}""",
    "goodfellow2014": """@inproceedings{goodfellow2014generative,
  title     = {Generative Adversarial Nets},
  author    = {Goodfellow, Ian and Pouget-Abadie, Jean and Mirza, Mehdi and Xu, Bing and Warde-Farley, David and Ozair, Sherjil and Courville, Aaron and Bengio, Yoshua},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2014}
}""",
    "kim2023": """@inproceedings{kim2023refining,
  title     = {Refining Generative Process with Discriminator Guidance in Score-Based Diffusion Models},
  author    = {Kim, Dongjun and Kim, Yeongmin and Kwon, Se Jung and Kang, Wanmo and Moon, Il-Chul},
  booktitle = {International Conference on Machine Learning},
  year      = {2023}
}""",
    "ho2022": """@article{ho2022classifier,
  title   = {Classifier-Free Diffusion Guidance},
  author  = {Ho, Jonathan and Salimans, Tim},
  journal = {arXiv preprint arXiv:2207.12598},
  year    = {2022}
}""",
}


def bibtex(*keys: str) -> str:
    """The entries of `keys`, once each, the equation's own paper first."""
    return "\n\n".join(BIBTEX[k] for k in dict.fromkeys(("diffflow", *keys)))
