"""The words that the painter understands: a table from a word or short phrase to (kind, value).

Plurals need no entries. A phrase takes precedence over the words in it.
"""

from __future__ import annotations

CLASSES = ("city", "mountains", "sea", "desert", "forest", "temple", "field", "island", "village", "space")
TIMES = ("dawn", "morning", "noon", "sunset", "dusk", "night")
WEATHERS = ("clear", "cloudy", "fog", "rain", "snow", "storm")
SIDES = ("left", "centre", "right")
OBJECTS = (
    "boat",
    "tree",
    "palm",
    "pine",
    "cactus",
    "house",
    "tower",
    "bridge",
    "lighthouse",
    "waterfall",
    "river",
    "path",
    "rocket",
    "balloon",
    "windmill",
    "fence",
    "flowers",
    "campfire",
    "planet",
    "ship",
    "castle",
    "rocks",
    "ruins",
    "flyer",
    "pyramid",
)

# kind -> value -> the words for it, separated by commas
_WORDS: dict[str, dict[str, str]] = {
    "subject": {
        "city": "city, town, skyline, metropolis, downtown, cityscape, skyscraper, megacity",
        "mountains": "mountain, peak, summit, alps, cliff, mountain range",
        "sea": "sea, ocean, seascape, wave, open water, bay",
        "desert": "desert, dune, sahara, sand, wasteland",
        "forest": "forest, wood, woodland, jungle, grove, rainforest",
        "temple": "temple, shrine, parthenon, sanctuary, pagoda, acropolis",
        "field": "field, meadow, farmland, prairie, farm, wheat, crop, countryside, grassland, hill, pasture",
        "island": "island, isle, atoll, islet, tropical island, desert island",
        "village": "village, hamlet, cottages, settlement",
        "space": "space, outer space, galaxy, cosmos, universe, nebula, alien planet",
    },
    "time": {
        "dawn": "dawn, sunrise, daybreak, first light",
        "morning": "morning",
        "noon": "noon, midday, day, daytime, afternoon, sunny, daylight",
        "sunset": "sunset, sundown, golden hour, late afternoon, setting sun",
        "dusk": "dusk, evening, twilight, nightfall, blue hour",
        "night": "night, midnight, nighttime, moonlit, starry night",
    },
    "weather": {
        "clear": "clear, cloudless, clear sky",
        "cloudy": "cloudy, overcast",
        "fog": "fog, foggy, mist, haze, hazy",
        "rain": "rain, rainy, drizzle, raining",
        "snow": "snow, snowy, blizzard, snowfall, snowing",
        "storm": "storm, thunderstorm, lightning, thunder, tempest",
    },
    "luminary": {
        "sun": "sun",
        "moon": "moon, full moon",
        "crescent": "crescent moon, crescent, half moon",
    },
    "sky": {
        "clouds": "cloud",
        "stars": "star, starry, starlit, milky way",
        "birds": "bird, seagull, gull, flock",
        "sky": "sky",
        "aurora": "aurora, northern lights",
        "rainbow": "rainbow",
        "water": "water, lake, shore, coast, beach, harbour, harbor, reflection, pond",
        "ground": "ground, land, earth, rock plateau, plateau",
    },
    "object": {
        "boat": "boat, sailboat, canoe",
        "ship": "ship",
        "tree": "tree, oak",
        "palm": "palm, palm tree, oasis",
        "pine": "pine, pine tree, fir",
        "cactus": "cactus, cacti",
        "house": "house, cottage, cabin, hut, barn, home",
        "tower": "tower",
        "castle": "castle, fortress",
        "bridge": "bridge",
        "lighthouse": "lighthouse",
        "waterfall": "waterfall, cascade, falls",
        "river": "river, stream, creek",
        "path": "path, road, trail",
        "rocket": "rocket, spaceship, spacecraft",
        "planet": "planet, saturn",
        "balloon": "balloon, hot air balloon",
        "pyramid": "pyramid",
        "flyer": "vehicle, flying car, drone, airship",
        "windmill": "windmill, mill",
        "fence": "fence",
        "flowers": "flower, blossom, tulip, poppy, lavender, sunflower",
        "campfire": "campfire, fire, bonfire",
        "rocks": "rock, boulder, stones",
        "ruins": "ruin, column",
    },
    "colour": {
        "red": "red, crimson, scarlet",
        "orange": "orange, amber",
        "yellow": "yellow",
        "golden": "golden, gold, gilded",
        "white": "white",
        "silver": "silver",
        "pink": "pink, rose",
        "purple": "purple, violet, lilac, magenta",
        "blue": "blue, azure",
        "turquoise": "turquoise, teal, cyan",
        "green": "green, emerald",
        "brown": "brown",
        "black": "black",
        "grey": "grey, gray",
    },
    "side": {
        "left": "left, on the left, to the left, left side",
        "right": "right, on the right, to the right, right side",
        "centre": "centre, center, in the middle, middle",
    },
    "mood": {
        "serene": "serene, calm, peaceful, tranquil, quiet, still",
        "stormy": "stormy, dramatic, wild, moody",
        "golden": "golden light, golden glow, warm golden",
        "misty": "misty, ethereal",
        "pastel": "pastel, soft",
        "dreamy": "dreamy, dream, fantasy, romantic",
        "vibrant": "vibrant, colourful, colorful, bright, vivid",
        "dark": "dark, gloomy, spooky",
        "monochrome": "monochrome, black and white, noir",
        "neon": "neon, synthwave",
        "winter": "winter, wintry, frozen, icy, snow capped",
        "autumn": "autumn, autumnal, fall",
        "spring": "spring",
        "summer": "summer",
        "mystic": "mystic, mystical, magical, enchanted",
        "vintage": "vintage, retro, faded",
        "cold": "cold, arctic",
        "warm": "warm, hot",
        "minimal": "minimal, minimalist, simple",
    },
    "style": {
        "futuristic": "futuristic, cyberpunk, sci fi, future, high tech",
        "ancient": "ancient, old, weathered, ruined, roman, greek",
    },
    "count": {
        "1": "one, single, lone, lonely, solitary",
        "2": "two, pair of",
        "3": "three, several, some, few",
        "4": "four",
        "5": "five, many, lots of",
    },
    "break": {"": "and, with, while"},
    "is": {"": "is, are"},
    "not": {"": "no, without"},
    "around": {"": "surrounded by, amid, amidst, among, wreathed in, above the clouds"},
    "distance": {"": "distant, in the distance, far"},
}

Meaning = tuple[str, str]

VOCABULARY: dict[str, Meaning] = {
    phrase.strip(): (kind, value)
    for kind, values in _WORDS.items()
    for value, phrases in values.items()
    for phrase in phrases.split(",")
}

# Words that mean nothing for the picture, and are not reported as ignored.
_JOINING = """
a an the of on in at by over under above below behind before near next to into onto from along across
around between beside was there its it this that these those as for up down out through against within
upon scene picture image painting illustration landscape view panorama photo art drawing very beautiful
lovely pretty big large huge small little tiny tall high low great vast wide long deep solid surrounded
open falling rising setting shining glowing standing sitting flying floating full hour side top stone
where which or some style flat only just like be being has have you can see we i my our his her
"""
JOINING = frozenset(_JOINING.split())

# Words that end a sequence of adjectives, as "above" in "the moon is white above pine trees".
_CUTTING = "of in at on by over under above below behind before near next into onto along across"
CUTTING = frozenset(_CUTTING.split())

# The subject for a prompt that names only an object.
IMPLIED: dict[str, str] = {
    "boat": "sea",
    "ship": "sea",
    "lighthouse": "sea",
    "palm": "island",
    "cactus": "desert",
    "house": "field",
    "tower": "city",
    "bridge": "city",
    "waterfall": "mountains",
    "river": "mountains",
    "path": "field",
    "rocket": "space",
    "planet": "space",
    "balloon": "field",
    "windmill": "field",
    "fence": "field",
    "flowers": "field",
    "campfire": "forest",
    "pine": "forest",
    "tree": "field",
    "castle": "mountains",
    "rocks": "sea",
    "ruins": "temple",
    "flyer": "city",
    "pyramid": "desert",
}
