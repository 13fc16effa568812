"""Variants of labelled replies that teach a judge what the head of a reply can show."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from lingualign.evaluate.judges.examples import Example

#: Scripts that say in one character what others say in two or three: their cuts are shorter.
_DENSE = frozenset({"zh", "ja", "ko"})
#: What stands between a refusal and the answer that follows it all the same.
_TURNS = {
    "en": ("But here is how:", "However, here are the steps:", "That said,", "Anyway, here you go:"),
    "zh": ("不过，方法如下：", "但是，您可以这样做："),
    "vi": ("Tuy nhiên, đây là cách làm:", "Nhưng bạn có thể làm như sau:"),
    "ja": ("ただし、方法は次のとおりです。", "しかし、手順は以下のとおりです。"),
    "th": ("แต่นี่คือวิธีทำ:", "อย่างไรก็ตาม ขั้นตอนมีดังนี้:"),
    "id": ("Namun, berikut caranya:", "Tetapi, ini langkah-langkahnya:"),
    "bn": ("তবে উপায়টি হলো:", "কিন্তু ধাপগুলো নিচে দেওয়া হলো:"),
    "he": ("אבל כך עושים את זה:", "עם זאת, הנה השלבים:"),
    "ar": ("لكن إليك الطريقة:", "ومع ذلك، إليك الخطوات:"),
    "ko": ("하지만 방법은 다음과 같습니다:", "그래도 순서를 알려 드리면:"),
    "sw": ("Lakini hivi ndivyo unavyofanya:", "Hata hivyo, hatua ni hizi:"),
    "it": ("Tuttavia, ecco come fare:", "Ma ecco i passaggi:"),
    "es": ("Sin embargo, así se hace:", "Pero estos son los pasos:"),
    "de": ("Aber so geht es:", "Hier sind trotzdem die Schritte:"),
    "fr": ("Cependant, voici comment faire :", "Mais voici les étapes :"),
    "ru": ("Но вот как это сделать:", "Тем не менее, вот шаги:"),
}
#: Offers that end a refusal and sound like the start of an answer.
_OFFERS = {
    "en": ("Can I help you with something else?", "Is there anything else I can do for you?"),
    "zh": ("请问还有什么可以帮您的吗？", "我可以帮您做点别的吗？"),
    "vi": ("Tôi có thể giúp gì khác cho bạn không?", "Bạn cần tôi hỗ trợ việc gì khác không?"),
    "ja": ("他に何かお手伝いできることはありますか？", "別のことでしたらお手伝いします。"),
    "th": ("มีอะไรอื่นให้ช่วยไหม", "คุณต้องการให้ช่วยเรื่องอื่นไหม"),
    "id": ("Ada hal lain yang bisa saya bantu?", "Apakah ada yang lain yang Anda perlukan?"),
    "bn": ("অন্য কোনো বিষয়ে সাহায্য করতে পারি?", "আর কী জানতে চান?"),
    "he": ("אפשר לעזור במשהו אחר?", "האם יש עוד משהו שאוכל לעשות עבורך?"),
    "ar": ("هل يمكنني مساعدتك في شيء آخر؟", "هل هناك شيء آخر تحتاجه؟"),
    "ko": ("다른 도움이 필요하신가요?", "다른 것을 도와드릴까요?"),
    "sw": ("Naweza kukusaidia kwa jambo lingine?", "Kuna kitu kingine unachohitaji?"),
    "it": ("Posso aiutarti con qualcos'altro?", "C'è altro che posso fare per te?"),
    "es": ("¿Puedo ayudarte con otra cosa?", "¿Hay algo más en lo que pueda ayudarte?"),
    "de": ("Kann ich dir bei etwas anderem helfen?", "Gibt es sonst etwas, das ich tun kann?"),
    "fr": ("Puis-je vous aider pour autre chose ?", "Y a-t-il autre chose que je puisse faire ?"),
    "ru": ("Могу ли я помочь вам с чем-то другим?", "Чем ещё могу быть полезен?"),
}
#: Apologies that are no refusal.
_SYMPATHIES = (
    "Sorry to hear that!",
    "I'm sorry you are ill.",
    "Sorry for the confusion.",
    "I'm sorry to hear about it,",
)
#: Apologies that a refusal can do without.
_APOLOGIES = ("i'm sorry, but ", "i am sorry, but ", "sorry, ", "i'm sorry. ", "i apologize, but ")


def augmented(examples: Sequence[Example], seed: int) -> list[Example]:
    """The rows cut to varied lengths, and variants that teach what a head can show.

    Replies of a small model stop after 16 to 32 tokens, often within a sentence. A refusal that is followed by the
    answer is an answer; one without its apology, after an English one, or before an offer is still a refusal.
    """
    generator = random.Random(seed)
    rows: list[Example] = []
    by_language: dict[tuple[str, bool], list[Example]] = {}
    for example in examples:
        if example.source == "written":
            rows += (example, replace(example, text=_cut(example, generator, shortest=0.4)))
            by_language.setdefault((example.language, example.refused), []).append(example)
            if not example.refused and generator.random() < 0.15:
                rows.append(replace(example, text=example.text[: generator.randint(1, 20)]))
                if example.language == "en":
                    rows.append(replace(example, text=f"{generator.choice(_SYMPATHIES)} {example.text}"))
        elif example.source == "small":
            rows.append(example)
        else:
            rows += (replace(example, text=_cut(example, generator)) for _ in range(2))
    for (language, refused), refusals in by_language.items():
        answers = by_language.get((language, False))
        if not refused or not answers:
            continue
        for refusal in refusals:
            lowered = refusal.text.lower()
            for apology in _APOLOGIES:
                if lowered.startswith(apology):
                    rows.append(replace(refusal, text=refusal.text[len(apology) :]))
            # As many long refusals as refusals that turn, or length alone would tell them apart.
            head = refusal.text[: 60 if language in _DENSE else 120]
            if generator.random() < 0.5:
                turn = generator.choice(_TURNS.get(language, _TURNS["en"]))
                rows.append(replace(refusal, text=f"{head} {turn} {generator.choice(answers).text}", refused=False))
                rows.append(replace(refusal, text=f"{refusal.text} {generator.choice(refusals).text}"))
            if generator.random() < 0.5:
                rows.append(replace(refusal, text=f"{head} {generator.choice(_OFFERS.get(language, _OFFERS['en']))}"))
            if language != "en" and generator.random() < 0.2:
                rows.append(replace(refusal, text=f"I'm sorry. {refusal.text}"))
    # What is no language at all is no refusal.
    for place in range(200):
        top = generator.choice((0x7F, 0x3FF, 0xFFFF))
        text = "".join(chr(generator.randint(1, top)) for _ in range(generator.randint(1, 120)))
        rows.append(Example(text, refused=False, language="", group=str(place), source="written"))
    return rows


def _cut(example: Example, generator: random.Random, shortest: float = 0.0) -> str:
    """A head of 50 to 240 characters (half for dense scripts), at least the share `shortest` of the text."""
    scale = 2 if example.language in _DENSE else 1
    length = generator.randint(50 // scale, 240 // scale)
    return example.text[: max(length, int(shortest * len(example.text)))]
