"""Papers, as text and as BibTeX, both made from the same fields."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

# signs that LaTeX takes for its own
_SPECIAL = str.maketrans({sign: f"\\{sign}" for sign in "&%$#_"})


@dataclass(frozen=True, kw_only=True)
class Citation:
    """A paper or a program.

    Attributes:
        key: of the BibTeX entry.
        kind: of the entry; ``"misc"`` for preprints and programs.
        authors: family name and given names, in order; one without given names is a group.
        title: as in a sentence: proper names and abbreviations alone have capitals.
        year: of publication.
        venue: journal or proceedings, in full.
        short: the same in a word, for text; None is ``venue``, ``""`` is nothing.
        pages: e.g. ``"618-626"``.
        volume: of a journal.
        doi: without ``https://doi.org/``.
        arxiv: number of a preprint.
        url: of what has neither.
        version: of a program.
    """

    key: str
    kind: Literal["article", "inproceedings", "misc", "software"]
    authors: tuple[tuple[str, str], ...]
    title: str
    year: int
    venue: str = ""
    short: str | None = None
    pages: str = ""
    volume: str = ""
    doi: str = ""
    arxiv: str = ""
    url: str = ""
    version: str = ""

    @property
    def link(self) -> str:
        """Where it is found."""
        if self.doi:
            return f"https://doi.org/{self.doi}"
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else self.url

    @property
    def who(self) -> str:
        """Its authors in a few words: family names, and from four on the first one's.

        Example:
            >>> KAN_2020.who, FONG_2019.who
            ('Kan et al.', 'Fong, Patrick and Vedaldi')
        """
        names = [family for family, _ in self.authors]
        if len(names) > 3:
            return f"{names[0]} et al."
        return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))

    @property
    def text(self) -> str:
        """One line for people.

        Example:
            >>> print(FONG_2017.text)
            Fong and Vedaldi, Interpretable explanations of black boxes by meaningful perturbation, ICCV 2017,
            https://doi.org/10.1109/ICCV.2017.371
        """
        short = self.venue if self.short is None else self.short
        title = f"{self.title}, version {self.version}" if self.version else self.title
        return f"{self.who}, {title}, {' '.join(filter(None, [short, str(self.year)]))}, {self.link}"

    @property
    def bibtex(self) -> str:
        """An entry for a bibliography, in UTF-8.

        Example:
            >>> print(FONG_2017.bibtex)
            @inproceedings{fong2017meaningful,
              author = {Fong, Ruth C. and Vedaldi, Andrea},
              title = {{Interpretable explanations of black boxes by meaningful perturbation}},
              booktitle = {2017 IEEE International Conference on Computer Vision (ICCV)},
              year = {2017},
              pages = {3449--3457},
              doi = {10.1109/ICCV.2017.371},
            }
        """
        where = {"article": "journal", "inproceedings": "booktitle"}.get(self.kind, "howpublished")
        # a group's name is one word to BibTeX when it stands in braces; so is a title, which keeps its capitals
        fields = {
            "author": " and ".join(
                f"{family}, {given}" if given else f"{{{family}}}" for family, given in self.authors
            ),
            "title": f"{{{self.title.translate(_SPECIAL)}}}",
            where: self.venue.translate(_SPECIAL),
            "year": str(self.year),
            "volume": self.volume,
            "pages": self.pages.replace("-", "--"),
            "version": self.version,
            "doi": self.doi,
            "eprint": self.arxiv,
            "archiveprefix": "arXiv" if self.arxiv else "",
            "url": self.url,
        }
        lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
        return "\n".join([f"@{self.kind}{{{self.key},", *lines, "}"])


def of_jaxsal(version: str) -> Citation:
    """Of jaxsal itself, as CITATION.cff has it."""
    return Citation(
        key="jaxsal",
        kind="software",
        authors=(("The jaxsal developers", ""),),
        title="jaxsal: explaining medical-image networks in JAX",
        year=2026,
        version=version,
        url="https://github.com/jaxsal/jaxsal",
    )


def bibliography(citations: Iterable[Citation]) -> str:
    """BibTeX of several, each once, in the order given.

    Example:
        >>> bibliography([FONG_2017, KAN_2020, FONG_2017]).count("@")
        2
    """
    return "\n\n".join(citation.bibtex for citation in dict.fromkeys(citations))


def _people(*names: str) -> tuple[tuple[str, str], ...]:
    """``"Given Names|Family"`` each, for what follows."""
    pairs: Sequence[Sequence[str]] = [name.split("|") for name in names]
    return tuple((family, given) for given, family in pairs)


KONATE_2021 = Citation(
    key="konate2021smocam",
    kind="inproceedings",
    authors=_people(
        "Salamata|Konate", "Léo|Lebrat", "Rodrigo|Santa Cruz", "Pierrick|Bourgeat", "Vincent|Doré", "Jurgen|Fripp",
        "Andrew|Bradley", "Clinton|Fookes", "Olivier|Salvado",
    ),
    title="SMOCAM: smooth conditional attention mask for 3D-regression models",
    year=2021,
    venue="2021 IEEE 18th International Symposium on Biomedical Imaging (ISBI)",
    short="ISBI",
    doi="10.1109/ISBI48211.2021.9433790",
)  # fmt: skip

FONG_2017 = Citation(
    key="fong2017meaningful",
    kind="inproceedings",
    authors=_people("Ruth C.|Fong", "Andrea|Vedaldi"),
    title="Interpretable explanations of black boxes by meaningful perturbation",
    year=2017,
    venue="2017 IEEE International Conference on Computer Vision (ICCV)",
    short="ICCV",
    pages="3449-3457",
    doi="10.1109/ICCV.2017.371",
)

KAN_2020 = Citation(
    key="kan2020interpretation",
    kind="misc",
    authors=_people(
        "Maxim|Kan", "Ruslan|Aliev", "Anna|Rudenko", "Nikita|Drobyshev", "Nikita|Petrashen", "Ekaterina|Kondrateva",
        "Maxim|Sharaev", "Alexander|Bernstein", "Evgeny|Burnaev",
    ),
    title="Interpretation of 3D CNNs for brain MRI data classification",
    year=2020,
    arxiv="2006.15969",
)  # fmt: skip

FONG_2019 = Citation(
    key="fong2019extremal",
    kind="inproceedings",
    authors=_people("Ruth|Fong", "Mandela|Patrick", "Andrea|Vedaldi"),
    title="Understanding deep networks via extremal perturbations and smooth masks",
    year=2019,
    venue="2019 IEEE/CVF International Conference on Computer Vision (ICCV)",
    short="ICCV",
    pages="2950-2958",
    doi="10.1109/ICCV.2019.00304",
)

SIMONYAN_2013 = Citation(
    key="simonyan2013deep",
    kind="misc",
    authors=_people("Karen|Simonyan", "Andrea|Vedaldi", "Andrew|Zisserman"),
    title="Deep inside convolutional networks: visualising image classification models and saliency maps",
    year=2013,
    arxiv="1312.6034",
)

SHRIKUMAR_2016 = Citation(
    key="shrikumar2016not",
    kind="misc",
    authors=_people("Avanti|Shrikumar", "Peyton|Greenside", "Anna|Shcherbina", "Anshul|Kundaje"),
    title="Not just a black box: learning important features through propagating activation differences",
    year=2016,
    arxiv="1605.01713",
)

SMILKOV_2017 = Citation(
    key="smilkov2017smoothgrad",
    kind="misc",
    authors=_people("Daniel|Smilkov", "Nikhil|Thorat", "Been|Kim", "Fernanda|Viégas", "Martin|Wattenberg"),
    title="SmoothGrad: removing noise by adding noise",
    year=2017,
    arxiv="1706.03825",
)

HOOKER_2019 = Citation(
    key="hooker2019benchmark",
    kind="inproceedings",
    authors=_people("Sara|Hooker", "Dumitru|Erhan", "Pieter-Jan|Kindermans", "Been|Kim"),
    title="A benchmark for interpretability methods in deep neural networks",
    year=2019,
    venue="Advances in Neural Information Processing Systems 32",
    short="NeurIPS",
    arxiv="1806.10758",
)

ADEBAYO_2018 = Citation(
    key="adebayo2018local",
    kind="misc",
    authors=_people("Julius|Adebayo", "Justin|Gilmer", "Ian|Goodfellow", "Been|Kim"),
    title="Local explanation methods for deep neural networks lack sensitivity to parameter values",
    year=2018,
    arxiv="1810.03307",
)

SUNDARARAJAN_2016 = Citation(
    key="sundararajan2016gradients",
    kind="misc",
    authors=_people("Mukund|Sundararajan", "Ankur|Taly", "Qiqi|Yan"),
    title="Gradients of counterfactuals",
    year=2016,
    arxiv="1611.02639",
)

SUNDARARAJAN_2017 = Citation(
    key="sundararajan2017axiomatic",
    kind="inproceedings",
    authors=_people("Mukund|Sundararajan", "Ankur|Taly", "Qiqi|Yan"),
    title="Axiomatic attribution for deep networks",
    year=2017,
    venue="Proceedings of the 34th International Conference on Machine Learning (ICML)",
    short="ICML",
    pages="3319-3328",
    arxiv="1703.01365",
)

XU_2020 = Citation(
    key="xu2020attribution",
    kind="inproceedings",
    authors=_people("Shawn|Xu", "Subhashini|Venugopalan", "Mukund|Sundararajan"),
    title="Attribution in scale and space",
    year=2020,
    venue="2020 IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)",
    short="CVPR",
    arxiv="2004.03383",
)

KAPISHNIKOV_2021 = Citation(
    key="kapishnikov2021guided",
    kind="inproceedings",
    authors=_people(
        "Andrei|Kapishnikov", "Subhashini|Venugopalan", "Besim|Avci", "Ben|Wedin", "Michael|Terry", "Tolga|Bolukbasi",
    ),
    title="Guided integrated gradients: an adaptive path method for removing noise",
    year=2021,
    venue="2021 IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)",
    short="CVPR",
    arxiv="2106.09788",
)  # fmt: skip

ERION_2021 = Citation(
    key="erion2021improving",
    kind="article",
    authors=_people("Gabriel|Erion", "Joseph D.|Janizek", "Pascal|Sturmfels", "Scott M.|Lundberg", "Su-In|Lee"),
    title="Improving performance of deep learning models with axiomatic attribution priors and expected gradients",
    year=2021,
    venue="Nature Machine Intelligence",
    volume="3",
    pages="620-631",
    doi="10.1038/s42256-021-00343-w",
)

SELVARAJU_2017 = Citation(
    key="selvaraju2017gradcam",
    kind="inproceedings",
    authors=_people(
        "Ramprasaath R.|Selvaraju", "Michael|Cogswell", "Abhishek|Das", "Ramakrishna|Vedantam", "Devi|Parikh",
        "Dhruv|Batra",
    ),
    title="Grad-CAM: visual explanations from deep networks via gradient-based localization",
    year=2017,
    venue="2017 IEEE International Conference on Computer Vision (ICCV)",
    short="ICCV",
    pages="618-626",
    doi="10.1109/ICCV.2017.74",
)  # fmt: skip

CHATTOPADHAY_2018 = Citation(
    key="chattopadhay2018gradcampp",
    kind="inproceedings",
    authors=_people("Aditya|Chattopadhay", "Anirban|Sarkar", "Prantik|Howlader", "Vineeth N.|Balasubramanian"),
    title="Grad-CAM++: generalized gradient-based visual explanations for deep convolutional networks",
    year=2018,
    venue="2018 IEEE Winter Conference on Applications of Computer Vision (WACV)",
    short="WACV",
    pages="839-847",
    doi="10.1109/WACV.2018.00097",
)

DRAELOS_2020 = Citation(
    key="draelos2020hirescam",
    kind="misc",
    authors=_people("Rachel Lea|Draelos", "Lawrence|Carin"),
    title="Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks",
    year=2020,
    arxiv="2011.08891",
)

JIANG_2021 = Citation(
    key="jiang2021layercam",
    kind="article",
    authors=_people("Peng-Tao|Jiang", "Chang-Bin|Zhang", "Qibin|Hou", "Ming-Ming|Cheng", "Yunchao|Wei"),
    title="LayerCAM: exploring hierarchical class activation maps for localization",
    year=2021,
    venue="IEEE Transactions on Image Processing",
    volume="30",
    pages="5875-5888",
    doi="10.1109/TIP.2021.3089943",
)

FU_2020 = Citation(
    key="fu2020axiom",
    kind="inproceedings",
    authors=_people("Ruigang|Fu", "Qingyong|Hu", "Xiaohu|Dong", "Yulan|Guo", "Yinghui|Gao", "Biao|Li"),
    title="Axiom-based Grad-CAM: towards accurate visualization and explanation of CNNs",
    year=2020,
    venue="British Machine Vision Conference (BMVC)",
    short="BMVC",
    arxiv="2008.02312",
)

WANG_2020 = Citation(
    key="wang2020scorecam",
    kind="inproceedings",
    authors=_people(
        "Haofan|Wang", "Zifan|Wang", "Mengnan|Du", "Fan|Yang", "Zijian|Zhang", "Sirui|Ding", "Piotr|Mardziel", "Xia|Hu",
    ),
    title="Score-CAM: score-weighted visual explanations for convolutional neural networks",
    year=2020,
    venue="2020 IEEE/CVF Conference on Computer Vision and Pattern Recognition Workshops (CVPRW)",
    short="CVPR Workshops",
    arxiv="1910.01279",
)  # fmt: skip

MUHAMMAD_2020 = Citation(
    key="muhammad2020eigencam",
    kind="inproceedings",
    authors=_people("Mohammed Bany|Muhammad", "Mohammed|Yeasin"),
    title="Eigen-CAM: class activation map using principal components",
    year=2020,
    venue="2020 International Joint Conference on Neural Networks (IJCNN)",
    short="IJCNN",
    doi="10.1109/IJCNN48605.2020.9206626",
)

SPRINGENBERG_2014 = Citation(
    key="springenberg2014striving",
    kind="misc",
    authors=_people("Jost Tobias|Springenberg", "Alexey|Dosovitskiy", "Thomas|Brox", "Martin|Riedmiller"),
    title="Striving for simplicity: the all convolutional net",
    year=2014,
    arxiv="1412.6806",
)

BACH_2015 = Citation(
    key="bach2015pixel",
    kind="article",
    authors=_people(
        "Sebastian|Bach",
        "Alexander|Binder",
        "Grégoire|Montavon",
        "Frederick|Klauschen",
        "Klaus-Robert|Müller",
        "Wojciech|Samek",
    ),
    title="On pixel-wise explanations for non-linear classifier decisions by layer-wise relevance propagation",
    year=2015,
    venue="PLOS ONE",
    volume="10",
    doi="10.1371/journal.pone.0130140",
)

MONTAVON_2017 = Citation(
    key="montavon2017explaining",
    kind="article",
    authors=_people(
        "Grégoire|Montavon", "Sebastian|Lapuschkin", "Alexander|Binder", "Wojciech|Samek", "Klaus-Robert|Müller"
    ),
    title="Explaining nonlinear classification decisions with deep Taylor decomposition",
    year=2017,
    venue="Pattern Recognition",
    volume="65",
    pages="211-222",
    doi="10.1016/j.patcog.2016.11.008",
)

KOHLBRENNER_2020 = Citation(
    key="kohlbrenner2020towards",
    kind="misc",
    authors=_people(
        "Maximilian|Kohlbrenner",
        "Alexander|Bauer",
        "Shinichi|Nakajima",
        "Alexander|Binder",
        "Wojciech|Samek",
        "Sebastian|Lapuschkin",
    ),
    title="Towards best practice in explaining neural network decisions with LRP",
    year=2020,
    arxiv="1910.09840",
)

SHRIKUMAR_2017 = Citation(
    key="shrikumar2017learning",
    kind="misc",
    authors=_people("Avanti|Shrikumar", "Peyton|Greenside", "Anshul|Kundaje"),
    title="Learning important features through propagating activation differences",
    year=2017,
    arxiv="1704.02685",
)

ZEILER_2014 = Citation(
    key="zeiler2014visualizing",
    kind="inproceedings",
    authors=_people("Matthew D.|Zeiler", "Rob|Fergus"),
    title="Visualizing and understanding convolutional networks",
    year=2014,
    venue="European Conference on Computer Vision",
    short="ECCV",
    pages="818-833",
    doi="10.1007/978-3-319-10590-1_53",
)

ZHANG_2018 = Citation(
    key="zhang2018top",
    kind="article",
    authors=_people(
        "Jianming|Zhang", "Sarah Adel|Bargal", "Zhe|Lin", "Jonathan|Brandt", "Xiaohui|Shen", "Stan|Sclaroff"
    ),
    title="Top-down neural attention by excitation backprop",
    year=2018,
    venue="International Journal of Computer Vision",
    short="IJCV",
    volume="126",
    pages="1084-1102",
    doi="10.1007/s11263-017-1059-x",
)

KUMAR_2018 = Citation(
    key="kumar2018understanding",
    kind="misc",
    authors=_people("Devinder|Kumar", "Vlado|Menkovski", "Graham W.|Taylor", "Alexander|Wong"),
    title="Understanding anatomy classification through attentive response maps",
    year=2017,
    arxiv="1611.06284",
)

KUMAR_2017 = Citation(
    key="kumar2017explaining",
    kind="misc",
    authors=_people("Devinder|Kumar", "Alexander|Wong", "Graham W.|Taylor"),
    title="Explaining the unexplained: a class-enhanced attentive response (CLEAR) approach to understanding deep "
    "neural networks",
    year=2017,
    arxiv="1704.04133",
)
