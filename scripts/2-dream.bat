@echo off
rem Dream over a directory of frames.  Usage: 2-dream.bat [FRAMES [DREAMS]]
setlocal DisableDelayedExpansion
set "FRAMES=%~1"
if not defined FRAMES set "FRAMES=Input"
set "DREAMS=%~2"
if not defined DREAMS set "DREAMS=Output"
set "PYTHON=%~dp0..\.venv\Scripts\python.exe"
if not exist "%PYTHON%" set "PYTHON=python"
rem A backslash before the closing quote would quote the quote.
if "%FRAMES:~-1%"=="\" set "FRAMES=%FRAMES%\"
if "%DREAMS:~-1%"=="\" set "DREAMS=%DREAMS%\"
"%PYTHON%" "%~dp0..\dreamer.py" --input="%FRAMES%" --output="%DREAMS%" --octaves 3 --octavescale 1.8 --iterations 16 --jitter 32 --zoom 1 --stepsize 1.5 --flow 1 --flowthresh 6 --blendflow 0.9 --blendstatic 0.1 --layers inception_4d/pool --gpu 1 -d 2 -mw 1500
exit /b %ERRORLEVEL%
