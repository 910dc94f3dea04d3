"""Papers behind the rows of the model table, as BibTeX, for `sde.cite()` and `diffflow cite`."""

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
    "franceschi2023": """@inproceedings{franceschi2023unifying,
  title     = {Unifying {GAN}s and Score-Based Diffusion as Generative Particle Models},
  author    = {Franceschi, Jean-Yves and Gartrell, Mike and Dos Santos, Ludovic and Issenhuth, Thibaut and de B{\\'e}zenac, Emmanuel and Chen, Micka{\\"e}l and Rakotomamonjy, Alain},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2023}
}""",
    "nowozin2016": """@inproceedings{nowozin2016fgan,
  title     = {{f-GAN}: Training Generative Neural Samplers using Variational Divergence Minimization},
  author    = {Nowozin, Sebastian and Cseke, Botond and Tomioka, Ryota},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2016}
}""",
    "mao2017": """@inproceedings{mao2017least,
  title     = {Least Squares Generative Adversarial Networks},
  author    = {Mao, Xudong and Li, Qing and Xie, Haoran and Lau, Raymond Y. K. and Wang, Zhen and Smolley, Stephen Paul},
  booktitle = {IEEE International Conference on Computer Vision},
  year      = {2017}
}""",
    "lim2017": """@article{lim2017geometric,
  title   = {Geometric {GAN}},
  author  = {Lim, Jae Hyun and Ye, Jong Chul},
  journal = {arXiv preprint arXiv:1705.02894},
  year    = {2017}
}""",
    "arjovsky2017": """@inproceedings{arjovsky2017wasserstein,
  title     = {{W}asserstein Generative Adversarial Networks},
  author    = {Arjovsky, Martin and Chintala, Soumith and Bottou, L{\\'e}on},
  booktitle = {International Conference on Machine Learning},
  year      = {2017}
}""",
    "gulrajani2017": """@inproceedings{gulrajani2017improved,
  title     = {Improved Training of {W}asserstein {GAN}s},
  author    = {Gulrajani, Ishaan and Ahmed, Faruk and Arjovsky, Martin and Dumoulin, Vincent and Courville, Aaron},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2017}
}""",
    "jolicoeur2019": """@inproceedings{jolicoeur2019relativistic,
  title     = {The Relativistic Discriminator: A Key Element Missing from Standard {GAN}},
  author    = {Jolicoeur-Martineau, Alexia},
  booktitle = {International Conference on Learning Representations},
  year      = {2019}
}""",
    "huang2024": """@inproceedings{huang2024gan,
  title     = {The {GAN} is Dead; Long Live the {GAN}! {A} Modern {GAN} Baseline},
  author    = {Huang, Nick and Gokaslan, Aaron and Kuleshov, Volodymyr and Tompkin, James},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2024}
}""",
    "gong2019": """@inproceedings{gong2019twin,
  title     = {Twin Auxiliary Classifiers {GAN}},
  author    = {Gong, Mingming and Xu, Yanwu and Li, Chunyuan and Zhang, Kun and Batmanghelich, Kayhan},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2019}
}""",
    "olkin1982": """@article{olkin1982distance,
  title     = {The Distance between Two Random Vectors with Given Dispersion Matrices},
  author    = {Olkin, Ingram and Pukelsheim, Friedrich},
  journal   = {Linear Algebra and its Applications},
  volume    = {48},
  pages     = {257--263},
  year      = {1982}
}""",
    "mescheder2018": """@inproceedings{mescheder2018which,
  title     = {Which Training Methods for {GAN}s do actually Converge?},
  author    = {Mescheder, Lars and Geiger, Andreas and Nowozin, Sebastian},
  booktitle = {International Conference on Machine Learning},
  year      = {2018}
}""",
    "miyato2018": """@inproceedings{miyato2018spectral,
  title     = {Spectral Normalization for Generative Adversarial Networks},
  author    = {Miyato, Takeru and Kataoka, Toshiki and Koyama, Masanori and Yoshida, Yuichi},
  booktitle = {International Conference on Learning Representations},
  year      = {2018}
}""",
    "liu2016": """@inproceedings{liu2016stein,
  title     = {{S}tein Variational Gradient Descent: A General Purpose {B}ayesian Inference Algorithm},
  author    = {Liu, Qiang and Wang, Dilin},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2016}
}""",
    "arbel2019": """@inproceedings{arbel2019maximum,
  title     = {Maximum Mean Discrepancy Gradient Flow},
  author    = {Arbel, Michael and Korba, Anna and Salim, Adil and Gretton, Arthur},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2019}
}""",
    "korba2021": """@inproceedings{korba2021kernel,
  title     = {Kernel {S}tein Discrepancy Descent},
  author    = {Korba, Anna and Aubin-Frankowski, Pierre-Cyril and Majewski, Szymon and Ablin, Pierre},
  booktitle = {International Conference on Machine Learning},
  year      = {2021}
}""",
    "liutkus2019": """@inproceedings{liutkus2019sliced,
  title     = {Sliced-{W}asserstein Flows: Nonparametric Generative Modeling via Optimal Transport and Diffusions},
  author    = {Liutkus, Antoine and {\\c{S}}im{\\c{s}}ekli, Umut and Majewski, Szymon and Durmus, Alain and St{\\"o}ter, Fabian-Robert},
  booktitle = {International Conference on Machine Learning},
  year      = {2019}
}""",
    "yi2023": """@inproceedings{yi2023monoflow,
  title     = {{MonoFlow}: Rethinking Divergence {GAN}s via the Perspective of {W}asserstein Gradient Flows},
  author    = {Yi, Mingxuan and Zhu, Zhanxing and Liu, Song},
  booktitle = {International Conference on Machine Learning},
  year      = {2023}
}""",
    "gao2019": """@inproceedings{gao2019deep,
  title     = {Deep Generative Learning via Variational Gradient Flow},
  author    = {Gao, Yuan and Jiao, Yuling and Wang, Yang and Wang, Yao and Yang, Can and Zhang, Shunkang},
  booktitle = {International Conference on Machine Learning},
  year      = {2019}
}""",
    "weber2023": """@article{weber2023score,
  title   = {The Score-Difference Flow for Implicit Generative Modeling},
  author  = {Weber, Romann M.},
  journal = {arXiv preprint arXiv:2304.12906},
  year    = {2023}
}""",
    "deng2026": """@article{deng2026drifting,
  title   = {Generative Modeling via Drifting},
  author  = {Deng, Mingyang and Li, He and Li, Tianhong and Du, Yilun and He, Kaiming},
  journal = {arXiv preprint arXiv:2602.04770},
  year    = {2026}
}""",
    "luhman2021": """@misc{luhman2021knowledge,
  title         = {Knowledge Distillation in Iterative Generative Models for Improved Sampling Speed},
  author        = {Luhman, Eric and Luhman, Troy},
  year          = {2021},
  eprint        = {2101.02388},
  archiveprefix = {arXiv}
}""",
    "luo2023": """@inproceedings{luo2023diffinstruct,
  title     = {{Diff-Instruct}: A Universal Approach for Transferring Knowledge From Pre-trained Diffusion Models},
  author    = {Luo, Weijian and Hu, Tianyang and Zhang, Shifeng and Sun, Jiacheng and Li, Zhenguo and Zhang, Zhihua},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2023}
}""",
    "yin2024": """@inproceedings{yin2024onestep,
  title     = {One-step Diffusion with Distribution Matching Distillation},
  author    = {Yin, Tianwei and Gharbi, Micha{\\"e}l and Zhang, Richard and Shechtman, Eli and Durand, Fr{\\'e}do and Freeman, William T. and Park, Taesung},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2024}
}""",
    "yin2024b": """@inproceedings{yin2024improved,
  title     = {Improved Distribution Matching Distillation for Fast Image Synthesis},
  author    = {Yin, Tianwei and Gharbi, Micha{\\"e}l and Park, Taesung and Zhang, Richard and Shechtman, Eli and Durand, Fr{\\'e}do and Freeman, William T.},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2024}
}""",
    "zhou2024": """@inproceedings{zhou2024score,
  title     = {Score identity Distillation: Exponentially Fast Distillation of Pretrained Diffusion Models for One-Step Generation},
  author    = {Zhou, Mingyuan and Zheng, Huangjie and Wang, Zhendong and Yin, Mingzhang and Huang, Hai},
  booktitle = {International Conference on Machine Learning},
  year      = {2024}
}""",
}


def bibtex(*keys: str) -> str:
    """BibTeX entries of papers, once each, the equation's own paper first.

    Args:
        keys: keys of `BIBTEX`.

    Returns:
        The entries, with an empty line between them.

    Raises:
        KeyError: for a key that is not in `BIBTEX`.
    """
    return "\n\n".join(BIBTEX[k] for k in dict.fromkeys(("diffflow", *keys)))
